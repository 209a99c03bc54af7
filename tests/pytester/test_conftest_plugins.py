from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from toy_project import Project


def test_a_misspelt_hook_is_named(project: Project) -> None:
    project.write("conftest.py", project.text("conftest.py").replace("qgate_register_metrics", "qgate_register_metrcs"))

    result = project.run("--qgate")

    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: *conftest.py*qgate_register_metrcs*"])


def test_a_hook_without_its_marker_is_named(project: Project) -> None:
    project.write("conftest.py", project.text("conftest.py").replace("@qgate.hookimpl\n", ""))

    result = project.run("--qgate")

    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: *conftest.py*qgate_register_*@qgate.hookimpl*"])


def test_a_name_that_is_taken_twice_names_both_plugins(project: Project) -> None:
    project.write("conftest.py", project.text("conftest.py").replace("[Accuracy]", "[Accuracy, Accuracy]"))

    result = project.run("--qgate")

    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(['ERROR: *"accuracy" is taken twice among the metrics*conftest.py*conftest.py*'])


def test_a_conftest_beside_a_configuration_elsewhere(project: Project) -> None:
    plugin = project.text("conftest.py")
    (project.root / "conftest.py").unlink()
    for name in ("toy.py", "qgate.toml"):
        project.write(f"gates/{name}", project.text(name))
    project.write("gates/conftest.py", plugin)
    project.write("test_other.py", "def test_other():\n    pass\n")

    result = project.run("--qgate-config", "gates/qgate.toml", "test_other.py")

    result.assert_outcomes(passed=3)


def test_a_reporter_of_a_conftest_writes(project: Project) -> None:
    reporter = """

class Shout:
    name = "shout"

    def write(self, result, destination):
        destination.write_text("HELD" if result.passed else "MISSED")


@qgate.hookimpl
def qgate_register_reporters():
    return [Shout]
"""
    project.write("conftest.py", project.text("conftest.py") + reporter)

    assert project.run("--qgate-report", "shout:loud.txt").ret == pytest.ExitCode.OK
    assert project.text("loud.txt") == "HELD"


def test_without_conftests_there_are_no_plugins_of_theirs(project: Project) -> None:
    assert project.run("--qgate", "--noconftest").ret == pytest.ExitCode.USAGE_ERROR
