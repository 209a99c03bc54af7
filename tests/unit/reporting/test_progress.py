from __future__ import annotations

import io
import re
from typing import TYPE_CHECKING

from qgate.reporting.progress import progress_on

if TYPE_CHECKING:
    import pytest


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def run_steps(stream: io.StringIO) -> str:
    with progress_on(stream) as make:
        progress = make("toy")
        for step, total in (("quantize", None), ("calibrate", 3), ("quantize", None)):
            progress.start(step, total)
            for _ in range(total or 0):
                progress.advance()
            progress.finish()
    return stream.getvalue()


def test_elsewhere_a_step_is_one_line_even_where_it_goes_on_later() -> None:
    lines = run_steps(io.StringIO()).splitlines()

    assert [re.sub(r"\d+\.\d", "N", line) for line in lines] == ["toy: quantize: N s", "toy: calibrate (3): N s, N/s"]


def test_on_a_terminal_a_step_is_a_full_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.delenv("NO_COLOR", raising=False)

    drawn = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", run_steps(Terminal()))

    assert re.search(r"toy: calibrate +\S+ +3/3 +0:00:00", drawn)
    last_frame = drawn[drawn.rindex("toy: quantize") :]
    assert last_frame.count("toy: ") == 2
