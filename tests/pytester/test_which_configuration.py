from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from toy_project import HELD, MISSED

if TYPE_CHECKING:
    from toy_project import Project


@pytest.fixture
def nested(project: Project) -> Project:
    """Add a folder with a configuration of its own, whose model has another name."""
    project.write("pytest.ini", "[pytest]\n")
    for name in ("toy.py", "conftest.py"):
        project.write(f"gates/{name}", project.text(name))
        (project.root / name).unlink()
    project.configure(HELD, models=("nested",), name="gates/qgate.toml")
    project.configure(MISSED)
    return project


@pytest.mark.parametrize(
    ("argument", "passed"), [("gates/qgate.toml", 2), ("gates/qgate.toml::nested::accuracy.max_drop", 1)]
)
def test_a_file_among_the_arguments(nested: Project, argument: str, passed: int) -> None:
    result = nested.run("--qgate", argument, "-v")

    result.assert_outcomes(passed=passed)
    result.stdout.fnmatch_lines(["gates/qgate.toml::nested::accuracy.max_drop PASSED*"])


def test_the_one_in_the_working_folder(nested: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(nested.root / "gates")

    result = nested.run("--qgate", "-v")

    result.assert_outcomes(passed=2)
    assert list(nested.root.glob("gates/.qgate/results.json"))


def test_an_option_says_it_against_the_working_folder(nested: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    nested.configure(HELD, models=("other",), name="gates/other.toml")
    monkeypatch.chdir(nested.root / "gates")

    result = nested.run("--qgate-config", "other.toml", "-v")

    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(["*other.toml::other::accuracy.max_drop PASSED*"])


def test_two_files_are_refused(nested: Project) -> None:
    result = nested.run("--qgate", "qgate.toml", "gates/qgate.toml")

    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: one run judges one configuration, not qgate.toml, gates/qgate.toml; *"])


def test_a_file_that_is_not_there(nested: Project) -> None:
    result = nested.run("--qgate", "gates/qgates.toml")

    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: gates/qgates.toml: *"])


def test_workers_take_the_same_file(nested: Project) -> None:
    pytest.importorskip("xdist")

    result = nested.pytester.runpytest_subprocess("--qgate", "gates/qgate.toml", "-n2")

    result.assert_outcomes(passed=2)
