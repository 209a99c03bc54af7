"""One forward pass on the clock, and whether the process had its cores for all of it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Stopwatch"]

# A pass that waited longer than this for a core was pre-empted: a share of its time, and what reading the clocks takes.
_LOST_SHARE, _LOST_SECONDS = 0.05, 1e-4
_THREADS = Path("/proc/self/task")


class Stopwatch:
    """Times forward passes on as many threads as torch has now."""

    def __init__(self) -> None:
        self._time_lost = _choose_clock(torch.get_num_threads())

    def now(self) -> float:
        """Give the time in seconds, from any beginning."""
        return time.perf_counter()

    def run(self, form: torch.nn.Module, example_inputs: tuple[torch.Tensor, ...]) -> tuple[float, bool]:
        """Run a form once; give its seconds, and whether it was undisturbed: never without its cores for long."""
        inputs = [value.clone() for value in example_inputs]  # a model may change them in place
        lost = self._time_lost()
        begin = time.perf_counter()
        form(*inputs)
        seconds = time.perf_counter() - begin
        lost = self._time_lost() - lost
        return seconds, lost < _LOST_SHARE * seconds + _LOST_SECONDS


def _choose_clock(num_threads: int) -> Callable[[], float]:
    """Choose how lost time is known. Of several threads one may honestly wait for another, which is no time lost."""
    return _waited_for_a_core if num_threads > 1 and _waited_for_a_core() is not None else _off_the_core  # type: ignore[return-value]


def _off_the_core() -> float:
    """Give the seconds that the calling thread has not been running, which only differences of say anything."""
    return time.perf_counter() - time.thread_time()


def _waited_for_a_core() -> float | None:
    """Give the seconds that this process's threads were ready to run and had no core; None where nobody counts them.

    Source: Linux, Documentation/scheduler/sched-stats.rst, /proc/<pid>/schedstat: time on a core and time waiting for
    one, in nanoseconds; both are 0 where the kernel does not count.
    """
    ran = waited = 0
    for thread in _THREADS.glob("*/schedstat"):
        try:
            times = thread.read_text(encoding="ascii").split()
        except OSError:  # the thread has just ended
            continue
        ran, waited = ran + int(times[0]), waited + int(times[1])
    return waited * 1e-9 if ran else None
