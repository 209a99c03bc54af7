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


def test_one_worker_runs_the_gate_of_a_model_for_both(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)  # this test may run in a worker itself
    project.configure(MISSED, SIZE)
    note = "open(f\"ran-{os.environ.get('PYTEST_XDIST_WORKER', 'controller')}\", \"w\").close()"
    model = project.text("toy.py").replace("def model():", f"import os\n\n\ndef model():\n    {note}")
    project.write("toy.py", model)

    result = project.pytester.runpytest_subprocess("--qgate", "-n2", "-v")

    result.assert_outcomes(passed=2, failed=1)
    judged = {line.split("]")[0] for line in result.outlines if line.startswith("[gw") and "qgate.toml::" in line}
    assert judged == {"[gw0", "[gw1"}
    ran = {path.name for path in project.root.glob("ran-gw*")}
    assert len(ran) == 1, ran
    assert len(project.results()["models"]["toy"]["verdicts"]) == 3


@pytest.mark.parametrize("scheme", ["loadscope", "loadfile", "loadgroup", "worksteal", "each"])
def test_every_scheme_of_distribution_gives_the_same_verdict(project: Project, scheme: str) -> None:
    project.configure(MISSED, models=("toy", "small"))

    result = project.pytester.runpytest_subprocess("--qgate", "-n2", f"--dist={scheme}")

    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["qgate: FAILED, 2 of 4 limits not held*"])
    assert list(project.results()["models"]) == ["toy", "small"]


def test_a_deselection_in_workers_is_called_partial(project: Project) -> None:
    result = project.pytester.runpytest_subprocess("--qgate", "-n2", "-k", "max_drop")

    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["qgate: PARTIAL, 1 limit held; 1 limit not judged"])
    assert project.results()["not_judged"] == ["toy: accuracy lower_bound"]


def test_the_first_failure_ends_the_workers_and_is_shown(project: Project) -> None:
    """The exit code is the one that xdist gives to any failing test: 2, which is never a pass."""
    project.configure(MISSED)
    project.write("plain/test_failing.py", "def test_failing():\n    assert False\n")

    plain = project.pytester.runpytest_subprocess("-n2", "-x", "plain")
    result = project.pytester.runpytest_subprocess("-n2", "-x", "--qgate", "qgate.toml")

    assert result.ret == plain.ret == pytest.ExitCode.INTERRUPTED
    result.stdout.fnmatch_lines(["qgate: FAILED, 1 of *toy accuracy lower_bound*"])
    assert not (project.root / ".qgate" / "results.json").exists()


def test_a_bug_in_a_worker_is_an_internal_error(project: Project) -> None:
    bug = "\nimport qgate.pytest_session as session\nsession.properties = None\n"
    project.write("conftest.py", project.text("conftest.py") + bug)

    result = project.pytester.runpytest_subprocess("--qgate", "-n2")

    assert result.ret == pytest.ExitCode.INTERNAL_ERROR
    result.stdout.fnmatch_lines(["qgate: a bug in qgate or in a plugin*"])
