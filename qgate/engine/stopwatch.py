"""One forward pass on the clock, and whether the process had its cores for all of it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Pass", "Stopwatch"]

# A pass that waited longer than this for a core was pre-empted: a share of its time, and what reading the clocks takes.
_LOST_SHARE, _LOST_SECONDS = 0.05, 1e-4
_LEAST_SECONDS = 1e-6  # of a pass; it keeps ratios finite
_THREADS = Path("/proc/self/task")


class Pass(NamedTuple):
    """One forward pass: its seconds by the wall clock, and how many of them its threads waited for a core, added up."""

    seconds: float
    lost: float

    @property
    def is_undisturbed(self) -> bool:
        """Say whether the process kept its cores, as good as all the time."""
        return self.lost < _LOST_SHARE * self.seconds + _LOST_SECONDS

    @property
    def on_core(self) -> float:
        """Give the seconds that the one thread which did the work was running."""
        return max(self.seconds - self.lost, _LEAST_SECONDS)


class Stopwatch:
    """Times forward passes on as many threads as torch has now."""

    def __init__(self) -> None:
        num_threads = torch.get_num_threads()
        self.one_thread = num_threads == 1
        self._time_lost = _choose_clock(num_threads)

    def now(self) -> float:
        """Give the time in seconds, from any beginning."""
        return time.perf_counter()

    def run(self, form: torch.nn.Module, example_inputs: tuple[torch.Tensor, ...]) -> Pass:
        """Run a form once, on copies of its inputs."""
        inputs = [value.clone() for value in example_inputs]  # a model may change them in place
        lost = self._time_lost()
        begin = time.perf_counter()
        form(*inputs)
        seconds = time.perf_counter() - begin
        return Pass(seconds, self._time_lost() - lost)


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
