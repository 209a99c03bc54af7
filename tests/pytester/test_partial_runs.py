"""What is said where not every limit was judged."""

from __future__ import annotations

from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

import pytest
from toy_project import HELD, MISSED

if TYPE_CHECKING:
    from toy_project import Project

OTHER = "def test_other():\n    pass\n"


def suite_properties(project: Project) -> dict[str | None, str | None]:
    suite = ET.parse(project.root / "junit.xml").getroot().find("testsuite")  # noqa: S314  # ours
    assert suite is not None
    return {item.get("name"): item.get("value") for item in suite.findall("properties/property")}


@pytest.mark.parametrize(
    "selection",
    [
        ("-k", "lower_bound"),
        ("--deselect", "qgate.toml::toy::accuracy.max_drop"),
        ("qgate.toml::toy::accuracy.lower_bound",),
    ],
    ids=["keyword", "deselect", "node id"],
)
def test_a_selection_is_partial_wherever_it_is_told(project: Project, selection: tuple[str, ...]) -> None:
    result = project.run("--qgate", *selection, "--junitxml=junit.xml", "--qgate-report=markdown:report.md")

    assert result.ret == pytest.ExitCode.OK
    result.stdout.fnmatch_lines(
        ["qgate: PARTIAL, 1 limit held; 1 limit not judged", "not judged: toy: accuracy max_drop"]
    )
    assert project.results()["not_judged"] == ["toy: accuracy max_drop"]
    assert [verdict["limit"] for verdict in project.results()["models"]["toy"]["verdicts"]] == ["lower_bound"]
    assert "PARTIAL" in project.text("report.md")
    assert "not judged: toy: accuracy max\\_drop" in project.text("report.md")
    assert suite_properties(project)["qgate.not_judged"] == "toy: accuracy max_drop"


def test_a_whole_run_is_not_partial(project: Project) -> None:
    project.run("--qgate", "--junitxml=junit.xml", "-o", "junit_family=xunit1")

    assert project.results()["not_judged"] == []
    properties = suite_properties(project)
    assert "qgate.not_judged" not in properties
    assert properties["qgate.models.toy.artifact.sha256"] == project.results()["models"]["toy"]["artifact"]["sha256"]


def test_a_deselected_limit_that_is_missed_does_not_fail_the_run(project: Project) -> None:
    project.configure(MISSED)

    result = project.run("--qgate", "-k", "max_drop")

    assert result.ret == pytest.ExitCode.OK
    result.stdout.fnmatch_lines(["qgate: PARTIAL, 1 limit held; 1 limit not judged"])


def test_after_the_first_failure_a_judged_model_is_told_whole_and_others_are_not_judged(project: Project) -> None:
    missed = HELD.replace("max_drop = 0.9", "max_drop = -2")
    project.configure(missed, models=("toy", "small"))

    result = project.run("--qgate", "-x")

    assert result.ret == pytest.ExitCode.TESTS_FAILED
    statuses = [verdict["status"] for verdict in project.results()["models"]["toy"]["verdicts"]]
    assert statuses == ["failed", "passed"]
    assert project.results()["not_judged"] == ["small: accuracy max_drop", "small: accuracy lower_bound"]


@pytest.mark.parametrize(
    "arguments", [("-k", "other"), ("--lf",), ("--setup-only",), ("-m", "slow or other")], ids=lambda each: each[0]
)
def test_where_no_limit_was_judged_the_run_does_not_pass(project: Project, arguments: tuple[str, ...]) -> None:
    project.write("pytest.ini", "[pytest]\nmarkers = \n    slow\n    other\n")
    project.write("test_other.py", f"import pytest\n\n\n@pytest.mark.other\n{OTHER}")
    if arguments == ("--lf",):
        project.write("test_other.py", OTHER.replace("pass", "assert False"))
        project.run("--qgate")
        project.write("test_other.py", OTHER)

    result = project.run("--qgate", *arguments)

    assert result.ret == pytest.ExitCode.NO_TESTS_COLLECTED
    result.stdout.fnmatch_lines(["qgate: FAILED, nothing was judged; 2 limits not judged"])


def test_a_report_does_not_keep_an_older_verdict_where_nothing_was_judged(project: Project) -> None:
    project.write("test_other.py", OTHER)
    project.run("--qgate-report=markdown:report.md")

    project.run("--qgate-report=markdown:report.md", "-k", "other")

    assert project.text("report.md").startswith("### qgate: FAILED, nothing was judged")
    assert project.results()["models"]["toy"]["verdicts"]


def test_limits_that_are_skipped_are_not_judged(project: Project) -> None:
    skip = """

import pytest


def pytest_collection_modifyitems(items):
    for item in items:
        item.add_marker(pytest.mark.skip)
"""
    project.write("conftest.py", project.text("conftest.py") + skip)

    result = project.run("--qgate")

    assert result.ret == pytest.ExitCode.NO_TESTS_COLLECTED


def test_a_broken_test_elsewhere_leaves_the_limits_unjudged(project: Project) -> None:
    project.write("test_broken.py", "import no_such_module_anywhere\n")

    result = project.run("--qgate")

    assert result.ret == pytest.ExitCode.INTERRUPTED
    result.stdout.fnmatch_lines(["qgate: FAILED, nothing was judged; 2 limits not judged"])
