from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from toy_project import HELD, MISSED

if TYPE_CHECKING:
    from toy_project import Project


@pytest.fixture
def two_models(project: Project) -> Project:
    project.configure(HELD, models=("toy", "small"))
    return project


@pytest.mark.parametrize(
    ("argument", "passed"),
    [("qgate.toml", 4), ("qgate.toml::small", 2), ("qgate.toml::small::accuracy.max_drop", 1)],
)
def test_a_node_id_selects(two_models: Project, argument: str, passed: int) -> None:
    two_models.run("--qgate", argument).assert_outcomes(passed=passed)


def test_a_node_id_that_is_not_there(two_models: Project) -> None:
    assert two_models.run("--qgate", "qgate.toml::small::accuracy.min_drop").ret == pytest.ExitCode.USAGE_ERROR


def test_a_keyword_selects_and_the_verdict_is_called_partial(two_models: Project) -> None:
    result = two_models.run("--qgate", "-k", "small and max_drop")

    result.assert_outcomes(passed=1, deselected=3)
    result.stdout.fnmatch_lines(["qgate: PARTIAL, 1 limit held; 3 limits not judged"])
    assert list(two_models.results()["models"]) == ["small"]


def test_the_last_failure_is_run_alone(project: Project) -> None:
    project.configure(MISSED)
    project.write("test_other.py", "def test_other():\n    pass\n")
    project.run("--qgate").assert_outcomes(passed=2, failed=1)

    result = project.run("--qgate", "--lf", "-v")

    result.assert_outcomes(failed=1, deselected=2)
    result.stdout.fnmatch_lines(["qgate.toml::toy::accuracy.lower_bound FAILED*"])


def test_the_first_failure_ends_the_run(two_models: Project) -> None:
    two_models.configure(MISSED.replace("max_drop = 0.9", "max_drop = -2"), models=("toy", "small"))

    result = two_models.run("--qgate", "-x")

    result.assert_outcomes(failed=1)
    assert list(two_models.results()["models"]) == ["toy"]


def test_a_model_is_run_once_for_all_its_limits(project: Project) -> None:
    project.write("toy.py", project.text("toy.py") + "\n\nwith open('loads', 'a') as loads:\n    loads.write('x')\n")

    project.run("--qgate").assert_outcomes(passed=2)

    assert project.text("loads") == "x"
