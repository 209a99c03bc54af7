"""What GitHub and GitLab are told by a run of pytest."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from toy_project import HELD, MISSED

if TYPE_CHECKING:
    from pathlib import Path

    from toy_project import Project


@pytest.fixture
def summary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Look like a step on GitHub, and give the file of its summary."""
    path = tmp_path / "summary.md"
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(path))
    return path


def line_of(project: Project, text: str) -> int:
    return 1 + project.text("qgate.toml").splitlines().index(text)


@pytest.mark.parametrize("arguments", [(), ("-q",), ("-vv", "--color=yes"), ("-n2",)], ids=["", "-q", "color", "-n2"])
def test_an_annotation_begins_its_line(project: Project, summary: Path, arguments: tuple[str, ...]) -> None:
    project.configure(MISSED)
    (project.root / ".git").mkdir()

    result = project.pytester.runpytest_subprocess("--qgate", *arguments)

    (line,) = [line for line in result.outlines if line.startswith("::")]
    place = f"file=qgate.toml,line={line_of(project, 'lower_bound = 1.5')}"
    assert line.startswith(f"::error {place},title=qgate%3A toy%3A accuracy lower_bound::failed: is ")
    assert summary.read_text(encoding="utf-8").count("### qgate: FAILED, 1 of 2 limits not held") == 1


def test_the_path_is_the_repositorys(project: Project, summary: Path) -> None:
    (project.root / ".git").mkdir()
    for name in ("toy.py", "conftest.py"):
        project.write(f"gates/{name}", project.text(name))
        (project.root / name).unlink()
    project.configure(MISSED, name="gates/qgate.toml")

    result = project.run("--qgate", "gates/qgate.toml")

    result.stdout.fnmatch_lines(["::error file=gates/qgate.toml,line=*"])


def test_where_all_holds_there_is_no_annotation(project: Project, summary: Path) -> None:
    result = project.run("--qgate")

    assert not [line for line in result.outlines if line.startswith("::")]
    assert summary.read_text(encoding="utf-8").startswith("### qgate: PASSED, 2 limits held")


def test_a_summary_that_cannot_be_written_is_one_line(
    project: Project, summary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary.parent))

    result = project.run("--qgate")

    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(["qgate: error: *the step summary cannot be written: Is a directory"])


def test_elsewhere_github_is_told_nothing(project: Project, summary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GITHUB_ACTIONS")
    project.configure(MISSED)

    result = project.run("--qgate")

    assert not [line for line in result.outlines if line.startswith("::")]
    assert not summary.exists()


def test_gitlab_has_its_report(project: Project) -> None:
    project.configure(MISSED)

    project.run("--qgate-report", "gitlab:quality.json")
    first = json.loads(project.text("quality.json"))
    project.run("--qgate-report", "gitlab:quality.json")

    (issue,) = first
    assert issue["location"] == {"path": "qgate.toml", "lines": {"begin": line_of(project, "lower_bound = 1.5")}}
    assert issue["description"].startswith("toy: accuracy lower_bound failed: is ")
    assert json.loads(project.text("quality.json"))[0]["fingerprint"] == issue["fingerprint"]
    project.configure(HELD)
    project.run("--qgate-report", "gitlab:quality.json")
    assert json.loads(project.text("quality.json")) == []
