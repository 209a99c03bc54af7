"""Runs of `qgate`, in this process or one of its own."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from qgate.cli import main

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import pytest


@dataclass(frozen=True)
class Outcome:
    """What a run printed, and its exit code."""

    code: int
    out: str
    err: str

    @property
    def error(self) -> str:
        """Give the message, having checked that the run ended as a user's mistake does: one line, nothing else."""
        assert self.code == 4, self
        assert self.out == ""
        line, end, rest = self.err.partition("\n")
        assert (end, rest) == ("\n", ""), self.err
        assert line.startswith("qgate: error: ")
        return line.removeprefix("qgate: error: ")


def in_process(capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """Give what runs `qgate` with some arguments in this process."""

    def run(*arguments: str | Path) -> Outcome:
        try:
            code = main([str(argument) for argument in arguments])
        except SystemExit as exit_:  # argparse's way
            code = int(exit_.code or 0)
        return Outcome(code, *capsys.readouterr())

    return run


def as_process(folder: Path, *arguments: str, flags: tuple[str, ...] = ()) -> Outcome:
    """Run `qgate` in a process of its own, in `folder`; `flags` are Python's."""
    command = [sys.executable, *flags, "-m", "qgate", *arguments]
    process = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=120)
    return Outcome(process.returncode, process.stdout, process.stderr)
