from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest
from toy_project import HELD, MISSED, SPEED

if TYPE_CHECKING:
    from toy_project import Project


def test_limits_that_hold_pass(project: Project) -> None:
    result = project.run("--qgate")

    assert result.ret == pytest.ExitCode.OK
    result.assert_outcomes(passed=2)


def test_a_missed_limit_fails_alone_with_its_line_and_no_traceback(project: Project) -> None:
    project.configure(MISSED)
    line = 1 + project.text("qgate.toml").splitlines().index("lower_bound = 1.5")

    result = project.run("--qgate")

    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines([f"qgate.toml:{line}: accuracy.lower_bound: is * in int8, at least 1.5 is required*"])
    assert "Traceback" not in result.stdout.str()
    assert "runtest" not in result.stdout.str()


def test_a_crashing_metric_fails_every_limit_with_its_reason(project: Project) -> None:
    crash = project.text("conftest.py").replace("return float(", "raise KeyError('no such class'); return float(")
    project.write("conftest.py", crash)

    result = project.run("--qgate")

    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.assert_outcomes(failed=2)
    result.stdout.fnmatch_lines(["*accuracy.max_drop: not measured: *no such class*"])


@pytest.mark.parametrize(
    ("found", "replacement", "expected"),
    [
        ("max_drop", "max_dop", "qgate.toml:*max_dop*did you mean*max_drop*"),
        ("schema_version = 1", "schema_version = ", "qgate.toml:1: is not TOML*"),
        ('"first_ones"', '"first_one"', "qgate.toml:*first_one*did you mean*first_ones*"),
        ("thresholds.accuracy", "thresholds.acuracy", "qgate.toml:*acuracy*did you mean*accuracy*"),
        ('evaluation = { factory = "toy:data"', 'evaluation = { factory = "toy:no_data"', "*evaluation data is empty"),
        ('"toy:model"', '"toy:modle"', "*toy:modle*"),
    ],
    ids=["misspelt key", "not TOML", "unknown calibrator", "unknown metric", "no evaluation data", "no such factory"],
)
def test_a_mistake_in_the_configuration_is_one_line_and_runs_nothing(
    project: Project, found: str, replacement: str, expected: str
) -> None:
    project.write("qgate.toml", project.text("qgate.toml").replace(found, replacement))
    project.write("test_other.py", "def test_other():\n    open('ran', 'w').close()\n")

    result = project.run("--qgate")

    assert result.ret == pytest.ExitCode.USAGE_ERROR
    (line,) = [line for line in result.stderr.lines if line]
    result.stderr.fnmatch_lines([f"ERROR: {expected}"])
    assert line.startswith("ERROR: ")
    assert "Traceback" not in result.stdout.str() + result.stderr.str()
    assert not (project.root / "ran").exists()


def test_a_missing_configuration_is_a_usage_error(project: Project) -> None:
    (project.root / "qgate.toml").unlink()

    result = project.run("--qgate")

    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: qgate.toml: *"])


def test_collecting_no_limit_does_not_pass(project: Project) -> None:
    result = project.run("--qgate", "-k", "nothing_of_that_name")

    assert result.ret == pytest.ExitCode.NO_TESTS_COLLECTED
    result.stdout.fnmatch_lines(["qgate: FAILED, nothing was judged; 2 limits not judged"])


def test_an_interrupted_run_leaves_the_last_results_alone(project: Project) -> None:
    project.run("--qgate")
    before = project.text(".qgate/results.json")
    project.write("test_zz.py", "def test_interrupt():\n    raise KeyboardInterrupt\n")

    result = project.pytester.runpytest_subprocess("--qgate", "qgate.toml", "test_zz.py")

    assert result.ret == pytest.ExitCode.INTERRUPTED
    assert project.text(".qgate/results.json") == before


def test_results_that_cannot_be_written_are_an_error_before_anything_runs(project: Project) -> None:
    project.write(".qgate/results.json/in_the_way", "")
    project.write("test_other.py", "def test_other():\n    open('ran', 'w').close()\n")

    result = project.run("--qgate")

    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: .qgate/results.json: the results cannot be written: Is a directory; *"])
    assert not (project.root / "ran").exists()


def test_results_that_cannot_be_written_in_the_end_are_an_error_behind_the_verdict(project: Project) -> None:
    in_the_way = "import pathlib; pathlib.Path('.qgate/results.json').mkdir(exist_ok=True); return float("
    project.write("conftest.py", project.text("conftest.py").replace("return float(", in_the_way))

    result = project.run("--qgate")

    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stdout.fnmatch_lines(
        ["qgate: PASSED, 2 limits held", "qgate: error: .qgate/results.json: the results cannot be written: *"]
    )


def test_a_bug_is_an_internal_error(project: Project) -> None:
    project.write(
        "conftest.py", project.text("conftest.py") + "\nimport qgate.engine.gate as gate\ngate.parse = None\n"
    )

    result = project.pytester.runpytest_subprocess("--qgate")

    assert result.ret == pytest.ExitCode.INTERNAL_ERROR


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("qgate.engine.gate.Gate", "preflight"),
        ("qgate.pytest_session", "properties"),
        ("qgate.pytest_outcome.Outcome", "save"),
        ("qgate.reporting.console", "render"),
    ],
    ids=["before the tests", "in an item", "at the end", "in the summary"],
)
@pytest.mark.parametrize("limits", [HELD, MISSED], ids=["held", "missed"])
def test_a_bug_is_an_internal_error_wherever_it_is(project: Project, module: str, name: str, limits: str) -> None:
    project.configure(limits)
    bug = f"\nimport qgate.pytest_session, qgate.reporting.console, qgate.pytest_outcome\n{module}.{name} = None\n"
    project.write("conftest.py", project.text("conftest.py") + bug)

    result = project.pytester.runpytest_subprocess("--qgate")

    assert result.ret == pytest.ExitCode.INTERNAL_ERROR
    assert "'NoneType' object is not callable" in result.stdout.str() + result.stderr.str()


@pytest.mark.parametrize(
    "flags",
    [
        ("-W", "error"),
        ("-p", "no:cacheprovider"),
        ("--import-mode=importlib",),
        ("-p", "no:terminal"),
        ("--strict-markers", "--strict-config"),
    ],
    ids=" ".join,
)
@pytest.mark.parametrize(("limits", "code"), [(HELD, 0), (MISSED, 1)], ids=["held", "missed"])
def test_the_verdict_does_not_depend_on_how_pytest_is_run(
    project: Project, flags: tuple[str, ...], limits: str, code: int
) -> None:
    project.configure(limits)

    assert project.run("--qgate", *flags).ret == code


def test_a_process_exits_so_too_where_every_warning_is_an_error(project: Project) -> None:
    project.configure(MISSED, SPEED)

    result = project.pytester.run(sys.executable, "-W", "error", "-m", "pytest", "--qgate", "-W", "error")

    assert result.ret == 1
    result.assert_outcomes(passed=2, failed=1)
    assert result.stderr.str() == ""
