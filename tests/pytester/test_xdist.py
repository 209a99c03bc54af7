from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from toy_project import HELD, MISSED, SPEED

if TYPE_CHECKING:
    from toy_project import Project

SIZE = "[models.toy.thresholds.size_reduction]\nlower_bound = -9.0\n"

pytest.importorskip("xdist")


def test_workers_judge_and_the_controller_saves(project: Project) -> None:
    project.configure(MISSED, SIZE, SPEED)
    project.write("tests/test_other.py", "def test_other():\n    pass\n")
    project.write("pytest.ini", "[pytest]\ntestpaths = tests\n")

    result = project.pytester.runpytest_subprocess("--qgate", "-n2", "--junitxml=junit.xml")

    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.assert_outcomes(passed=3, failed=2)
    result.stdout.fnmatch_lines(["*speedup.lower_bound: not measured: *; under xdist no speed is measured*"])
    result.stdout.fnmatch_lines(["qgate: FAILED, 2 of 4 limits not held*"])
    verdicts = project.results()["models"]["toy"]["verdicts"]
    assert {f"{verdict['metric']}.{verdict['limit']}": verdict["status"] for verdict in verdicts} == {
        "accuracy.max_drop": "passed",
        "accuracy.lower_bound": "failed",
        "size_reduction.lower_bound": "passed",
        "speedup.lower_bound": "error",
    }
    assert 'name="qgate.measured"' in project.text("junit.xml")


def test_a_mistake_stops_the_controller(project: Project) -> None:
    project.configure(HELD)
    project.write("qgate.toml", project.text("qgate.toml").replace('"toy:data" }', '"toy:no_data" }'))

    result = project.pytester.runpytest_subprocess("--qgate", "-n2")

    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: qgate.toml:*: the evaluation data is empty"])
