"""What `qgate tune` found, as a table or as JSON."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from qgate.engine.tuning.candidates import settings
from qgate.engine.tuning.search import pareto_front
from qgate.reporting.tables import add_columns
from qgate.reporting.text import printable

if TYPE_CHECKING:
    from qgate.config.model import QuantizationConfig
    from qgate.engine.tuning.search import Attempt, Tuned
    from qgate.engine.tuning.trials import Trial

__all__ = ["as_json", "as_text"]

_MEGABYTE = 1e6


def as_json(tuned: Tuned) -> dict[str, Any]:
    """Give every attempt with its figures, in the order in which they were made."""
    front = pareto_front(tuned.attempts)
    base = tuned.attempts[0].trial.recipe
    return {
        "metric": tuned.metric,
        "num_samples": tuned.num_samples,
        "seconds": tuned.seconds,
        "untried": tuned.untried,
        "best": tuned.best.label,
        "attempts": [{**_plain(one, base), "on_front": one in front} for one in tuned.attempts],
    }


def _plain(attempt: Attempt, base: QuantizationConfig) -> dict[str, Any]:
    trial = attempt.trial
    compared = {
        name: figure and figure.value for name, figure in (("accuracy", trial.accuracy), ("distance", trial.distance))
    }
    figures = {name: getattr(trial, name) for name in ("speedup", "speedup_interval", "bytes", "seconds")}
    return {
        "recipe": attempt.label,
        "settings": settings(base, trial.recipe),
        **compared,
        **figures,
        "failure": trial.failure,
    }


def as_text(name: str, tuned: Tuned, *, width: int = 80) -> str:
    """Write a table of the attempts, the Pareto front marked, and the best, for `width` columns."""
    stream = io.StringIO()
    console = Console(file=stream, width=width)
    compared = "distance of raw outputs from float32's, and " if _has_distances(tuned) else ""
    _print(
        console,
        f"{name}: {len(tuned.attempts)} recipes on {tuned.num_samples} calibration samples held out, "
        f"{tuned.seconds / 60:.1f} min; {compared}{tuned.metric} with float32's predictions for targets",
    )
    console.print()
    console.print(_table(tuned))
    for attempt in tuned.attempts:
        if attempt.trial.failure:
            _print(console, f"{attempt.label}: {attempt.trial.failure}")
    for line in _foot(tuned):
        _print(console, line)
    return "\n".join(line.rstrip() for line in stream.getvalue().splitlines()) + "\n"


def _print(console: Console, line: str) -> None:
    console.print(printable(line), highlight=False, markup=False)


def _table(tuned: Tuned) -> Table:
    front = pareto_front(tuned.attempts)
    table = Table(box=None, pad_edge=False)
    table.add_column("")
    figures = [*(["distance"] if _has_distances(tuned) else []), tuned.metric, "speedup", "MB"]
    add_columns(table, "recipe", *figures)
    for attempt in sorted(tuned.attempts, key=lambda one: _order(one.trial), reverse=True):
        mark = "*" if attempt is tuned.best else "+" if attempt in front else ""
        table.add_row(mark, Text(printable(attempt.label)), *_cells(attempt.trial))
    return table


def _has_distances(tuned: Tuned) -> bool:
    return any(attempt.trial.distance for attempt in tuned.attempts)


def _order(trial: Trial) -> float:
    return trial.fidelity.signed if trial.fidelity else float("-inf")


def _cells(trial: Trial) -> list[str]:
    if trial.accuracy is None or trial.bytes is None:
        return ["failed"]
    distance = [f"{trial.distance.value:.4f}"] if trial.distance else []
    speedup = "" if trial.speedup is None else f"{trial.speedup:.2f}x"
    return [*distance, f"{trial.accuracy.value:.4f}", speedup, f"{trial.bytes / _MEGABYTE:.2f}"]


def _foot(tuned: Tuned) -> list[str]:
    marks = (
        "* the best: not shown to be less accurate than another, then the fastest, then the simplest. + on the Pareto "
    )
    untried = f"; {tuned.untried} recipes were not tried for lack of time" if tuned.untried else ""
    return ["", f"{marks}front of accuracy, speed and size{untried}."]
