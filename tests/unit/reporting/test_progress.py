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


def test_elsewhere_a_long_step_says_each_minute_how_far_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr("qgate.reporting.progress.time.perf_counter", lambda: clock[0])
    stream = io.StringIO()

    with progress_on(stream) as make:
        progress = make("toy")
        progress.start("evaluate", 400)
        for _ in range(10):
            clock[0] += 16.0
            progress.advance(40)
        progress.finish()

    assert stream.getvalue().splitlines() == [
        "toy: evaluate (400): 160 after 64.0 s, 2.5/s",
        "toy: evaluate (400): 320 after 128.0 s, 2.5/s",
        "toy: evaluate (400): 160.0 s, 2.5/s",
    ]


def test_on_a_terminal_a_step_is_a_full_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.delenv("NO_COLOR", raising=False)

    drawn = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", run_steps(Terminal()))

    assert re.search(r"toy: calibrate +\S+ +3/3 +0:00:00 +\d+\.\d/s", drawn)
    last_frame = drawn[drawn.rindex("toy: quantize") :]
    assert last_frame.count("toy: ") == 2


def report_epochs(stream: io.StringIO) -> str:
    with progress_on(stream) as make:
        progress = make("toy")
        progress.start("train", 4)
        for epoch in (1, 2):
            progress.advance(2)
            progress.report(f"epoch {epoch} of 2: loss 0.5, 1.0 min left")
        progress.finish()
    return stream.getvalue()


def test_how_a_step_is_coming_along_is_a_line_each_time() -> None:
    lines = report_epochs(io.StringIO()).splitlines()

    assert lines[:2] == [f"toy: train (4): epoch {epoch} of 2: loss 0.5, 1.0 min left" for epoch in (1, 2)]
    assert len(lines) == 3


def test_on_a_terminal_it_stands_at_the_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")

    drawn = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", report_epochs(Terminal()))

    assert re.search(r"toy: train: epoch 2 of 2: loss 0.5, 1.0 min left +\S+ +4/4", drawn)
