"""Runs of `qgate`, in this process or one of its own."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

from qgate.testing.runner import Outcome, in_process

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Outcome", "as_process", "in_process"]


def as_process(folder: Path, *arguments: str, flags: tuple[str, ...] = ()) -> Outcome:
    """Run `qgate` in a process of its own, in `folder`; `flags` are Python's."""
    command = [sys.executable, *flags, "-m", "qgate", *arguments]
    process = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=120)
    return Outcome(process.returncode, process.stdout, process.stderr)
