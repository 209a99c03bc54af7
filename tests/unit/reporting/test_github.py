from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from qgate.errors import QGateError
from qgate.reporting.github import annotation_lines, append_summary
from qgate.results import ModelResult, Result, Verdict

if TYPE_CHECKING:
    from pathlib import Path

FAILED = Verdict("map", "max_drop", 0.015, 0.02, "failed", "fell by 4%\nor so: a, b", line=12)
ERROR = Verdict("map", "lower_bound", 0.3, None, "error", "not measured", {"class": "a:b,c%\r\n"}, line=20)
INCONCLUSIVE = Verdict("speedup", "lower_bound", 1.4, 1.45, "inconclusive", "not settled", line=30)
PASSED = Verdict("map50", "max_drop", 0.1, 0.01, "passed", line=40)


def make_result(*verdicts: Verdict) -> Result:
    model = ModelResult({}, None, 8, {}, verdicts, {})
    return Result("0", "", "", {}, {"net": model}, config_path="gates/qgate.toml")


def test_a_missed_limit_is_an_error_on_its_line() -> None:
    assert list(annotation_lines(make_result(FAILED, PASSED), "fail")) == [
        "::error file=gates/qgate.toml,line=12,title=qgate%3A net%3A map max_drop::failed: fell by 4%25%0Aor so: a, b"
    ]


def test_what_is_called_by_special_characters_stays_one_command() -> None:
    (line,) = annotation_lines(make_result(ERROR), "fail")

    assert line == (
        "::error file=gates/qgate.toml,line=20,"
        "title=qgate%3A net%3A map[class=a%3Ab%2Cc%25%0D%0A] lower_bound::error: not measured"
    )


@pytest.mark.parametrize(("on_inconclusive", "level"), [("fail", "error"), ("warn", "warning")])
def test_inconclusive_is_an_error_where_it_fails_the_build(on_inconclusive: str, level: str) -> None:
    (line,) = annotation_lines(make_result(INCONCLUSIVE), on_inconclusive)  # type: ignore[arg-type]  # a literal

    assert line.startswith(f"::{level} file=gates/qgate.toml,line=30,")
    assert line.endswith("::inconclusive: not settled")


def test_a_part_is_not_mistaken_for_the_whole() -> None:
    partial = replace(make_result(PASSED), not_judged=("net: map max_drop", "other: map max_drop"))

    assert list(annotation_lines(partial, "fail")) == [
        "::warning file=gates/qgate.toml,title=qgate%3A not judged::net: map max_drop; other: map max_drop"
    ]


def test_the_summary_of_earlier_steps_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "summary.md"
    path.write_text("# Earlier\n", encoding="utf-8")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(path))

    append_summary(make_result(FAILED))

    text = path.read_text(encoding="utf-8")
    assert text.startswith("# Earlier\n### qgate: FAILED, 1 of 1 limit not held")
    assert "| map max\\_drop |" in text


def test_a_summary_that_cannot_be_written_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path))

    with pytest.raises(QGateError, match="the step summary cannot be written: Is a directory"):
        append_summary(make_result(FAILED))


def test_without_a_summary_file_nothing_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)

    append_summary(make_result(FAILED))
