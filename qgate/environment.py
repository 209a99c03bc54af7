"""The machine and the software that a result or an artifact comes from."""

from __future__ import annotations

import platform
import subprocess
from pathlib import Path
from typing import Any

# As Linux spells them.
_ISA = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512vbmi", "avx512_bf16", "amx_int8", "amx_bf16")


def describe_environment(num_threads: int, folder: Path) -> dict[str, Any]:
    """Describe Python, torch, the CPU and its instruction sets, and the git commit of `folder` (None outside git)."""
    import torch

    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cpu": cpu_name(),
        "isa": instruction_sets(),
        "num_threads": num_threads,
        "git_commit": _git_commit(folder),
    }


def cpu_name() -> str:
    """Give the CPU's model name, as the kernel reports it."""
    return _cpuinfo("model name") or platform.processor() or platform.machine()


def instruction_sets() -> list[str]:
    """List those instruction sets of this CPU that int8 kernels ask for; none where the kernel does not say."""
    flags = _cpuinfo("flags").split()
    return [name for name in _ISA if name in flags]


def repository_path(path: Path) -> str:
    """Give a path as CI systems name it: relative to the git repository that it is in, else to the working folder."""
    path = path.resolve()
    root = repository_folder(path)
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else path.as_posix()


def repository_folder(path: Path) -> Path:
    """Give the folder of the git repository that a path is in, else the working folder."""
    return next((folder for folder in path.resolve().parents if (folder / ".git").exists()), Path.cwd())


def _cpuinfo(key: str) -> str:
    """Give the first value of `key` in Linux's list of processors; empty where there is none."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.partition(":")[0].strip() == key), "")


def _git_commit(folder: Path) -> str | None:
    try:
        done = subprocess.run(  # noqa: S603  # fixed arguments
            ["git", "-C", str(folder), "rev-parse", "HEAD"],  # noqa: S607  # the user's git
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None  # without a commit, git prints "HEAD" and fails
