"""The same gate, however pytest is run: the same verdict, or a clear error."""

from __future__ import annotations

import ctypes
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from toy_project import HELD, MISSED

if TYPE_CHECKING:
    from collections.abc import Iterator

    from toy_project import Project

HOLDS_OR_NOT = pytest.mark.parametrize(("limits", "code"), [(HELD, 0), (MISSED, 1)], ids=["held", "missed"])

_PR_CAPBSET_DROP, _CAP_DAC_OVERRIDE = 24, 1  # linux/prctl.h, linux/capability.h


def _obey_permissions() -> None:
    """Take from root, in a child process, the right to write to what has no such permission; others never had it."""
    ctypes.CDLL(None).prctl(_PR_CAPBSET_DROP, _CAP_DAC_OVERRIDE)


def _run_obediently(project: Project, *arguments: str) -> pytest.RunResult:
    command = [sys.executable, "-m", "pytest", "--qgate", *arguments]
    done = subprocess.run(
        command,
        cwd=project.root,
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=_obey_permissions,  # it calls nothing that a thread could hold a lock of
    )
    return pytest.RunResult(done.returncode, done.stdout.splitlines(), done.stderr.splitlines(), 0.0)


@pytest.fixture
def read_only(project: Project) -> Iterator[Project]:
    """Fill the project, with artifacts elsewhere, for a test to lock it; unlock it in the end."""
    yield project
    project.root.chmod(0o755)


@HOLDS_OR_NOT
@pytest.mark.parametrize(
    "settings",
    ["filterwarnings = error", "testpaths = tests", "addopts = -p no:cacheprovider --import-mode=importlib"],
)
def test_settings_of_the_project(project: Project, settings: str, limits: str, code: int) -> None:
    project.configure(limits)
    project.write("pytest.ini", f"[pytest]\n{settings}\n")
    project.write("tests/test_other.py", "def test_other():\n    pass\n")

    assert project.run("--qgate").ret == code


@HOLDS_OR_NOT
def test_from_a_sub_folder(project: Project, monkeypatch: pytest.MonkeyPatch, limits: str, code: int) -> None:
    project.configure(limits)
    project.write("pytest.ini", "[pytest]\n")
    project.write("sub/test_other.py", "def test_other():\n    pass\n")
    monkeypatch.chdir(project.root / "sub")

    assert project.run("--qgate").ret == code


@HOLDS_OR_NOT
def test_in_workers_started_in_a_sub_folder(
    project: Project, monkeypatch: pytest.MonkeyPatch, limits: str, code: int
) -> None:
    pytest.importorskip("xdist")
    project.configure(limits)
    project.write("pytest.ini", "[pytest]\nfilterwarnings = error\n")
    project.write("sub/test_other.py", "def test_other():\n    pass\n")
    monkeypatch.chdir(project.root / "sub")

    result = project.pytester.runpytest_subprocess("--qgate", "-n2")

    assert result.ret == code
    result.assert_outcomes(passed=3 - code, failed=code)


@pytest.mark.skipif(sys.platform != "linux", reason="drops a capability of Linux")
def test_where_no_artifact_can_be_written_nothing_is_judged(read_only: Project) -> None:
    read_only.write("pytest.ini", "[pytest]\nfilterwarnings = error\n")
    read_only.root.chmod(0o555)

    result = _run_obediently(read_only)

    assert result.ret == pytest.ExitCode.USAGE_ERROR
    (line,) = [line for line in result.errlines if line]
    assert line.startswith("ERROR: .qgate/artifacts/toy.pt: cannot be written: Permission denied; ")
    assert "`artifacts` in [qgate]" in line


@HOLDS_OR_NOT
@pytest.mark.skipif(sys.platform != "linux", reason="drops a capability of Linux")
def test_a_working_folder_that_cannot_be_written(
    read_only: Project, tmp_path_factory: pytest.TempPathFactory, limits: str, code: int
) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    settings = f'[qgate]\nartifacts = "{elsewhere}"\nresults = "{elsewhere}/results.json"\n'
    read_only.configure(limits)
    read_only.write("pytest.ini", "[pytest]\nfilterwarnings = error\n")
    read_only.write("qgate.toml", read_only.text("qgate.toml").replace("[models.toy]", f"{settings}\n[models.toy]"))
    read_only.root.chmod(0o555)

    result = _run_obediently(read_only)

    assert result.ret == code
    result.stdout.fnmatch_lines([f"qgate: {'FAILED, 1 of ' if code else 'PASSED, '}2 limits *held*"])
    assert (elsewhere / "results.json").exists()


@pytest.mark.parametrize("style", ["long", "short", "line", "native", "auto", "no"])
def test_no_style_of_traceback_shows_one(project: Project, style: str) -> None:
    project.configure(MISSED)

    result = project.run("--qgate", f"--tb={style}", "--full-trace", "-vv", "-rA", "--showlocals", "--junitxml=x.xml")

    text = result.stdout.str() + project.text("x.xml")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert not [word for word in ("Traceback", "runtest", "pytest_items.py", "LimitMissedError") if word in text]
    assert "failed: accuracy lower_bound: is * in int8".partition("*")[0] in text
