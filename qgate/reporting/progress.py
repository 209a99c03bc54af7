"""Progress of long work: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import TextIO

    from rich.progress import Progress as Bars
    from rich.progress import Task, TaskID

    from qgate.engine.progress import Progress


_SECONDS = 60.0  # between lines of a step that takes long


class PlainProgress:
    """One line with its wall time for each step of `model` that ends, through `write_line`; of long ones one a minute.

    Where the units of a step are counted, how many a second there were is said, too. A step that goes on after another
    one has no second line.
    """

    def __init__(self, model: str, write_line: Callable[[str], None]) -> None:
        self._model = model
        self._write_line = write_line
        self._lines = set[str]()
        self._step = ""
        self._started = self._said = 0.0
        self._done = 0

    def start(self, step: str, total: int | None) -> None:
        """Begin a step."""
        self._step = step if total is None else f"{step} ({total})"
        self._started = self._said = time.perf_counter()
        self._done = 0

    def advance(self, count: int = 1) -> None:
        """Go on by `count`."""
        self._done += count
        if time.perf_counter() - self._said > _SECONDS:
            self._said = time.perf_counter()
            self._write_line(f"{self._model}: {self._step}: {self._done} after {self._spent()}")

    def report(self, text: str) -> None:
        """Write a line."""
        self._write_line(f"{self._model}: {self._step}: {text}")

    def finish(self) -> None:
        """End the step."""
        if self._step not in self._lines:
            self._lines.add(self._step)
            self._write_line(f"{self._model}: {self._step}: {self._spent()}")

    def _spent(self) -> str:
        seconds = time.perf_counter() - self._started
        return f"{seconds:.1f} s" + (f", {self._done / seconds:.1f}/s" if self._done else "")


class BarProgress:
    """A bar of rich for each step of `model`; a step of unknown length pulses, one that goes on has its bar again."""

    def __init__(self, model: str, bars: Bars) -> None:
        self._model = model
        self._bars = bars
        self._tasks: dict[str, TaskID] = {}
        self._task: TaskID | None = None

    def start(self, step: str, total: int | None) -> None:
        """Begin a step."""
        if step not in self._tasks:
            label = f"{self._model}: {step}"
            self._tasks[step] = self._bars.add_task(label, total=total, label=label)
        self._task = self._tasks[step]

    def advance(self, count: int = 1) -> None:
        """Go on by `count`."""
        if self._task is not None:
            self._bars.advance(self._task, count)

    def report(self, text: str) -> None:
        """Put the text behind the step's name."""
        if self._task is not None:
            self._bars.update(self._task, description=f"{self._bars.tasks[self._task].fields['label']}: {text}")

    def finish(self) -> None:
        """End the step: the bar is full, also where the length was not known."""
        if self._task is not None:
            task = self._bars.tasks[self._task]
            total = task.completed if task.total is None else task.total
            self._bars.update(self._task, total=total or 1, completed=total or 1)
            self._task = None


@contextmanager
def progress_on(stream: TextIO) -> Iterator[Callable[[str], Progress]]:
    """Give what makes a model's progress: bars where `stream` is a terminal, plain lines elsewhere."""
    if not stream.isatty():
        yield lambda model: PlainProgress(model, lambda line: print(line, file=stream, flush=True))
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TextColumn, TimeElapsedColumn
    from rich.text import Text

    class RateColumn(ProgressColumn):
        """How many units a second there are."""

        def render(self, task: Task) -> Text:
            rate = task.finished_speed or task.speed
            return Text(f"{rate:.1f}/s" if rate and (task.total or 1) > 1 else "")

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), RateColumn())
    with Progress(*columns, console=Console(file=stream)) as bars:
        yield lambda model: BarProgress(model, bars)
