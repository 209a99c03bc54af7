from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from qgate.reporting.gitlab import GitlabReporter
from qgate.results import ModelResult, Result, Verdict

if TYPE_CHECKING:
    from pathlib import Path

FAILED = Verdict("map", "max_drop", 0.015, 0.02, "failed", "fell by 0.02", line=12)
OF_A_CLASS = replace(FAILED, slice={"class": "person"}, line=16)
INCONCLUSIVE = Verdict("speedup", "lower_bound", 1.4, 1.45, "inconclusive", "not settled", line=30)
PASSED = Verdict("map50", "max_drop", 0.1, 0.01, "passed", line=40)


def issues(folder: Path, *verdicts: Verdict, not_judged: tuple[str, ...] = ()) -> list[dict[str, Any]]:
    model = ModelResult({}, None, 8, {}, verdicts, {})
    path = folder / "quality.json"
    result = Result("0", "", "", {}, {"net": model}, config_path="gates/qgate.toml", not_judged=not_judged)
    GitlabReporter().write(result, path)
    found: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
    return found


def test_what_has_not_passed_is_an_issue_on_its_line(tmp_path: Path) -> None:
    (failed, inconclusive) = issues(tmp_path, FAILED, PASSED, INCONCLUSIVE)

    assert failed["description"] == "net: map max_drop failed: fell by 0.02"
    assert failed["location"] == {"path": "gates/qgate.toml", "lines": {"begin": 12}}
    assert failed["check_name"] == "qgate/map.max_drop"
    assert (failed["severity"], inconclusive["severity"]) == ("critical", "major")


def test_where_everything_passed_the_list_is_empty(tmp_path: Path) -> None:
    assert issues(tmp_path, PASSED) == []


def test_what_was_not_judged_is_an_issue_too(tmp_path: Path) -> None:
    (issue,) = issues(tmp_path, PASSED, not_judged=("net: speedup lower_bound",))

    assert issue["description"] == "net: speedup lower_bound was not judged in this run"
    assert issue["location"] == {"path": "gates/qgate.toml", "lines": {"begin": 1}}


def test_a_fingerprint_is_a_limits_own_and_the_same_in_every_run(tmp_path: Path) -> None:
    before = issues(tmp_path, FAILED, OF_A_CLASS)
    after = issues(tmp_path, replace(FAILED, measured=0.03, message="fell by 0.03", line=13), OF_A_CLASS)

    assert [issue["fingerprint"] for issue in before] == [issue["fingerprint"] for issue in after]
    assert before[0]["fingerprint"] != before[1]["fingerprint"]
