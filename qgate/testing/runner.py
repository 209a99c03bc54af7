"""Runs of `qgate` in this process."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from qgate.cli import main

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import pytest

__all__ = ["Outcome", "in_process"]


@dataclass(frozen=True)
class Outcome:
    """What a run printed, and its exit code."""

    code: int
    out: str
    err: str

    @property
    def error(self) -> str:
        """Give the message of a run that ended as a user's mistake does. Raises `AssertionError` where it did not.

        Such a run exits with 4, prints one line to standard error, and nothing else.
        """
        start = "qgate: error: "
        line, end, rest = self.err.partition("\n")
        if self.code != 4 or self.out or not line.startswith(start) or (end, rest) != ("\n", ""):
            raise AssertionError(f"expected exit code 4 and one line of error, got {self}")
        return line.removeprefix(start)


def in_process(capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """Give what runs `qgate` with some arguments in this process."""

    def run(*arguments: str | Path) -> Outcome:
        try:
            code = main([str(argument) for argument in arguments])
        except SystemExit as exit_:  # argparse's way
            code = int(exit_.code or 0)
        return Outcome(code, *capsys.readouterr())

    return run
