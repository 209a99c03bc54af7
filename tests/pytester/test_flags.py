from __future__ import annotations

import json
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

import pytest
from toy_project import HELD, MISSED, SPEED

if TYPE_CHECKING:
    from toy_project import Project


def test_without_a_flag_nothing_is_collected(project: Project) -> None:
    assert project.run().ret == pytest.ExitCode.NO_TESTS_COLLECTED


def test_every_flag_is_in_the_help(project: Project) -> None:
    result = project.run("--help")

    for flag in ("--qgate ", "--qgate-config=PATH", "--qgate-model=NAME", "--qgate-report=FORMAT", "--qgate-no-timing"):
        assert flag in result.stdout.str()


def test_the_gate_runs_beside_other_tests(project: Project) -> None:
    project.write("tests/test_other.py", "def test_other():\n    pass\n")

    project.run("--qgate").assert_outcomes(passed=3)


@pytest.mark.parametrize("arguments", [(), ("tests",), ("tests/test_other.py",)], ids=["none", "folder", "file"])
def test_the_gate_runs_whatever_else_is_collected(project: Project, arguments: tuple[str, ...]) -> None:
    project.write("tests/test_other.py", "def test_other():\n    pass\n")
    project.write("pytest.ini", "[pytest]\ntestpaths = tests\n")

    result = project.run("--qgate", *arguments)

    result.assert_outcomes(passed=3)
    assert list(project.results()["models"]) == ["toy"]


def test_the_gate_runs_from_a_sub_folder(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    project.write("pytest.ini", "[pytest]\n")
    project.write("sub/test_other.py", "def test_other():\n    pass\n")
    monkeypatch.chdir(project.root / "sub")

    result = project.run("--qgate")

    result.assert_outcomes(passed=3)
    assert project.results()["models"]["toy"]["verdicts"]


def test_another_configuration(project: Project) -> None:
    project.configure(MISSED, name="other.toml")

    result = project.run("--qgate-config", "other.toml", "-v")

    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["other.toml::toy::accuracy.lower_bound FAILED*"])


def test_a_configuration_in_a_folder_that_pytest_would_not_enter(project: Project) -> None:
    project.configure(HELD, name=".hidden/gate.toml")
    project.write("test_other.py", "def test_other():\n    pass\n")

    result = project.run("--qgate-config", ".hidden/gate.toml", ".")

    result.assert_outcomes(passed=3)


def test_one_model_of_several(project: Project) -> None:
    project.configure(HELD, models=("toy", "small"))

    result = project.run("--qgate-model", "small", "-v")

    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(["qgate.toml::small::accuracy.max_drop PASSED*"])
    assert list(project.results()["models"]) == ["small"]


def test_a_model_that_is_not_there(project: Project) -> None:
    result = project.run("--qgate-model", "large")

    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(['ERROR: qgate.toml: has no model "large"; it has toy'])


def test_no_timing_means_that_a_speed_limit_fails(project: Project) -> None:
    project.configure(HELD, SPEED)

    result = project.run("--qgate-no-timing")

    result.assert_outcomes(passed=2, failed=1)
    result.stdout.fnmatch_lines(["*speedup.lower_bound: not measured: *switched off*"])
    assert "timing" not in project.results()["models"]["toy"]["seconds"]


def test_a_speed_limit_is_judged(project: Project) -> None:
    project.configure(SPEED)

    project.run("--qgate").assert_outcomes(passed=1)


def test_a_report_file_holds_what_was_saved(project: Project) -> None:
    project.run("--qgate-report", "json:out/report.json", "--qgate-report", "markdown:report.md")

    assert json.loads(project.text("out/report.json")) == project.results()
    assert project.text("report.md").startswith("### qgate: PASSED")
    assert "| accuracy max\\_drop |" in project.text("report.md")


def test_a_report_on_standard_output(project: Project) -> None:
    result = project.run("--qgate-report", "markdown")

    result.stdout.fnmatch_lines(["### qgate: PASSED, 2 limits held"])


def test_an_unknown_report_format_names_those_there_are(project: Project) -> None:
    result = project.run("--qgate-report", "pdf:report.html")

    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(['ERROR: unknown reporter "pdf"; there are gitlab, html, json, markdown'])
    assert not (project.root / ".qgate").exists()


def test_a_report_that_cannot_be_written_is_an_error(project: Project) -> None:
    project.write("folder/file", "")

    result = project.run("--qgate-report", "json:folder")

    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stdout.fnmatch_lines(["qgate: error: folder: the json report cannot be written: *"])


def test_the_junit_file_carries_every_figure(project: Project) -> None:
    project.configure(MISSED)

    project.run("--qgate", "--junitxml", "junit.xml")

    cases = {case.get("name"): case for case in ET.parse(project.root / "junit.xml").iter("testcase")}  # noqa: S314  # ours
    verdicts = {verdict["limit"]: verdict for verdict in project.results()["models"]["toy"]["verdicts"]}
    figures = project.results()["models"]["toy"]["metrics"]["accuracy"]
    properties = {item.get("name"): item.get("value") for item in cases["accuracy.lower_bound"].iter("property")}
    assert float(properties["qgate.measured"] or "") == verdicts["lower_bound"]["measured"]
    assert float(properties["qgate.limit"] or "") == 1.5
    assert float(properties["qgate.baseline"] or "") == figures["baseline"]
    assert float(properties["qgate.candidate"] or "") == figures["candidate"]
    assert properties["qgate.status"] == "failed"
    failure = cases["accuracy.lower_bound"].find("failure")
    assert failure is not None
    assert "1.5 is required" in (failure.get("message") or "")
    assert cases["accuracy.max_drop"].find("failure") is None


def test_the_run_closes_with_the_table(project: Project) -> None:
    result = project.run("--qgate")

    result.stdout.fnmatch_lines(
        ["qgate: PASSED, 2 limits held", "toy: int8 ptq fbgemm, 12 evaluation samples", "limit *", "accuracy *passed"]
    )


def test_verbose_runs_show_the_steps(project: Project) -> None:
    assert "toy: evaluate (12): " in project.run("--qgate", "-v").stdout.str()
    assert "toy: evaluate" not in project.run("--qgate").stdout.str()


def test_collecting_only_runs_nothing(project: Project) -> None:
    result = project.run("--qgate", "--collect-only", "-q")

    result.stdout.fnmatch_lines(["qgate.toml::toy::accuracy.max_drop", "qgate.toml::toy::accuracy.lower_bound"])
    assert not (project.root / ".qgate").exists()
