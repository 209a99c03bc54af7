from __future__ import annotations

import json
import platform
import subprocess
from typing import TYPE_CHECKING

import pytest
import torch

from qgate import environment
from qgate.environment import cpu_name, describe_environment, instruction_sets

if TYPE_CHECKING:
    from pathlib import Path

GIT = ("git", "-c", "user.name=Test", "-c", "user.email=test@example.org")
CPUINFO = """processor\t: 0
model name\t: Some Vendor Some CPU @ 2.00GHz
flags\t\t: fpu avx avx2 avx512f avx512_vnni amx_int8
vmx flags\t: avx_vnni

processor\t: 1
model name\t: Another
flags\t\t: fpu
"""


def git(folder: Path, *arguments: str) -> str:
    return subprocess.run([*GIT, "-C", folder, *arguments], check=True, capture_output=True, text=True).stdout.strip()


def test_it_names_versions_the_machine_and_the_commit(tmp_path: Path) -> None:
    git(tmp_path, "init")
    git(tmp_path, "commit", "--allow-empty", "-m", "First")

    described = describe_environment(3, tmp_path)

    assert described["git_commit"] == git(tmp_path, "rev-parse", "HEAD")
    assert (described["python"], described["torch"]) == (platform.python_version(), torch.__version__)
    assert described["num_threads"] == 3
    assert described["cpu"]
    assert json.loads(json.dumps(described)) == described


def test_a_repository_without_a_commit_has_none(tmp_path: Path) -> None:
    git(tmp_path, "init")

    assert describe_environment(1, tmp_path)["git_commit"] is None


def test_outside_git_there_is_no_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))

    assert describe_environment(1, tmp_path)["git_commit"] is None


def test_without_git_there_is_no_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")

    assert describe_environment(1, tmp_path)["git_commit"] is None


@pytest.fixture
def cpuinfo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let a file stand for /proc/cpuinfo."""
    path = tmp_path / "cpuinfo"
    monkeypatch.setattr(environment, "Path", lambda _: path)
    return path


def test_the_cpu_and_its_instruction_sets_are_the_kernels(cpuinfo: Path) -> None:
    cpuinfo.write_text(CPUINFO)

    assert cpu_name() == "Some Vendor Some CPU @ 2.00GHz"
    assert instruction_sets() == ["avx2", "avx512f", "avx512_vnni", "amx_int8"]


def test_a_system_that_does_not_say_is_no_error(cpuinfo: Path) -> None:
    assert cpu_name() == (platform.processor() or platform.machine())
    assert instruction_sets() == []


@pytest.mark.skipif(not hasattr(torch.cpu, "get_capabilities"), reason="this version of torch does not list them")
def test_torch_agrees_about_this_cpu() -> None:
    # torch calls avx512f avx512_f
    capabilities = {name.replace("avx512_f", "avx512f") for name, has in torch.cpu.get_capabilities().items() if has}

    assert {name for name in ("avx2", "avx512f", "avx512_vnni", "avx_vnni") if name in capabilities} == {
        name for name in instruction_sets() if name in ("avx2", "avx512f", "avx512_vnni", "avx_vnni")
    }
