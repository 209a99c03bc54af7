"""How a long run says where it is."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator


class Progress(Protocol):
    """Hears of the steps of a run; a step has a name and, where it is known, a number of units."""

    def start(self, step: str, total: int | None) -> None:
        """Begin a step."""
        ...

    def advance(self, count: int = 1) -> None:
        """Count units of the current step as done."""
        ...

    def report(self, text: str) -> None:
        """Say in a few words how the current step is coming along."""
        ...

    def finish(self) -> None:
        """End the current step."""
        ...


class Silent:
    """Progress that nobody watches."""

    def start(self, step: str, total: int | None) -> None:
        """Say nothing."""

    def advance(self, count: int = 1) -> None:
        """Say nothing."""

    def report(self, text: str) -> None:
        """Say nothing."""

    def finish(self) -> None:
        """Say nothing."""


class StepClock:
    """Times the steps of one run and tells a `Progress` of them."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress
        self.seconds: dict[str, float] = {}

    @contextlib.contextmanager
    def step(self, name: str, total: int | None = None) -> Iterator[Progress]:
        """Time one step; a step named again adds to its time."""
        self.progress.start(name, total)
        begin = time.perf_counter()
        try:
            yield self.progress
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - begin
            self.progress.finish()
