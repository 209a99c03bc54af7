"""What GitHub shows of a run: annotations on the lines of `qgate.toml`, and the step's summary."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from qgate.errors import QGateError
from qgate.reporting.markdown import markdown
from qgate.reporting.text import printable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from qgate.results import Result, Verdict

# Source: GitHub Docs, Workflow commands for GitHub Actions; what breaks a command's line is written in percent.
_IN_MESSAGE = {"%": "%25", "\r": "%0D", "\n": "%0A"}
_IN_PROPERTY = {**_IN_MESSAGE, ":": "%3A", ",": "%2C"}


def is_github() -> bool:
    """Say whether this process runs in GitHub Actions."""
    return os.environ.get("GITHUB_ACTIONS") == "true"


def annotation_lines(result: Result, on_inconclusive: Literal["fail", "warn"]) -> Iterator[str]:
    """Give a line for each verdict that has not passed: an error where it fails the build, else a warning.

    A last line warns of limits that were not judged.
    """
    for name, model in result.models.items():
        for verdict in model.verdicts:
            if verdict.status != "passed":
                level = "warning" if verdict.accepted(on_inconclusive) else "error"
                place = {"file": result.config_path, "line": verdict.line, "title": f"qgate: {name}: {verdict.name}"}
                yield f"::{level} {_properties(place)}::{_escape(_said(verdict), _IN_MESSAGE)}"
    if result.not_judged:
        place = {"file": result.config_path, "title": "qgate: not judged"}
        yield f"::warning {_properties(place)}::{_escape('; '.join(result.not_judged), _IN_MESSAGE)}"


def append_summary(result: Result) -> None:
    """Append the Markdown report to the step's summary, where GitHub names a file for it. Raises `QGateError`."""
    path = os.environ.get("GITHUB_STEP_SUMMARY")
    if not path:
        return
    try:
        with Path(path).open("a", encoding="utf-8") as stream:
            stream.write(markdown(result))
    except OSError as error:
        raise QGateError(f"the step summary cannot be written: {error.strerror or error}", path=path) from error


def _said(verdict: Verdict) -> str:
    return f"{verdict.status}: {verdict.message or 'no reason given'}"


def _properties(place: Mapping[str, str | int | None]) -> str:
    return ",".join(f"{key}={_escape(str(value), _IN_PROPERTY)}" for key, value in place.items() if value is not None)


def _escape(text: str, table: dict[str, str]) -> str:
    return "".join(table.get(char) or printable(char) for char in text)
