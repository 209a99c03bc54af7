"""GitLab's Code Quality report: what a merge request shows on the lines of `qgate.toml`."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any, ClassVar

from qgate.reporting.text import write_text

if TYPE_CHECKING:
    from pathlib import Path

    from qgate.results import Result, Verdict

_SEVERITIES = {"failed": "critical", "error": "critical", "inconclusive": "major"}


class GitlabReporter:
    """A list of what has not passed, in the format of GitLab's Code Quality artifacts."""

    name: ClassVar[str] = "gitlab"

    def write(self, result: Result, destination: Path | None) -> None:
        """Write `result` as GitLab's JSON; an empty list where everything was judged and passed."""
        path = result.config_path or "qgate.toml"
        issues = [
            _issue(name, verdict, path)
            for name, model in result.models.items()
            for verdict in model.verdicts
            if verdict.status != "passed"
        ]
        issues += [_not_judged(limit, path) for limit in result.not_judged]
        write_text(json.dumps(issues, indent=2) + "\n", destination)


def _issue(model: str, verdict: Verdict, path: str) -> dict[str, Any]:
    name = f"{model}: {verdict.name}"
    return {
        "description": f"{name} {verdict.status}: {verdict.message or 'no reason given'}",
        "check_name": f"qgate/{verdict.metric}.{verdict.limit}",
        "fingerprint": _fingerprint(path, name),
        "severity": _SEVERITIES[verdict.status],
        "location": {"path": path, "lines": {"begin": verdict.line or 1}},
    }


def _not_judged(limit: str, path: str) -> dict[str, Any]:
    return {
        "description": f"{limit} was not judged in this run",
        "check_name": "qgate/not_judged",
        "fingerprint": _fingerprint(path, f"{limit} not judged"),
        "severity": "major",
        "location": {"path": path, "lines": {"begin": 1}},
    }


def _fingerprint(path: str, name: str) -> str:
    """Identify a finding, the same in every run."""
    return hashlib.sha256(f"{path}: {name}".encode(errors="surrogatepass")).hexdigest()
