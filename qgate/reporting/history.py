"""The runs so far, as text or as JSON: a line of each figure's values, then a table of the runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich.text import Text

from qgate.blessed import measured_entries
from qgate.reporting.bars import sparkline
from qgate.reporting.changes import run_label
from qgate.reporting.console import print_labelled, printed
from qgate.reporting.figures import MISSING, optional, unit_of
from qgate.reporting.rows import standing
from qgate.reporting.tables import STYLES, add_columns, new_table
from qgate.reporting.text import printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console
    from rich.table import Table

    from qgate.blessed import Entry
    from qgate.history import History
    from qgate.reporting.bars import Glyphs
    from qgate.reporting.figures import Unit
    from qgate.results import Result

__all__ = ["as_json", "as_text"]

_RUNS = 20  # rows of the table; a line has as many values as there is room for
_LINE_WIDTH = 66  # of the table of lines without the lines themselves
_MIN_LINE = 10


@dataclass(frozen=True)
class _Series:
    """A figure of int8 in each run, None where it was not measured, or not under the conditions of the last run."""

    name: str
    values: tuple[float | None, ...]
    differences: str

    @property
    def known(self) -> list[float]:
        """Give the values that can be compared."""
        return [value for value in self.values if value is not None]

    @property
    def unit(self) -> Unit:
        """Give the unit of the metric, of which this may be a slice."""
        return unit_of(self.name.partition("[")[0])


def as_json(history: History) -> dict[str, Any]:
    """Give every run with int8's figures and the verdicts of each model, the oldest first."""
    return {"schema_version": 1, "unreadable": history.unreadable, "runs": [_run(run) for run in history.runs]}


def as_text(history: History, config: str, **terminal: Any) -> str:
    """Write each model's figures, drawn as lines, and the last runs; `terminal` is as `render` takes it."""
    return printed(history, lambda console, shown, glyphs: _print(console, shown, config, glyphs), **terminal)


def _run(run: Result) -> dict[str, Any]:
    return {
        "created": run.created,
        "git_commit": run.environment.get("git_commit"),
        "standing": standing(run),
        "models": {
            name: {
                "conditions": model.conditions,
                "figures": {metric: entry.value for metric, entry in _entries(run, name).items()},
                "verdicts": {verdict.name: verdict.status for verdict in model.verdicts},
            }
            for name, model in run.models.items()
        },
    }


def _entries(run: Result, name: str) -> dict[str, Entry]:
    model = run.models.get(name)
    return dict(measured_entries(model.metrics, model.conditions)) if model else {}


def _print(console: Console, history: History, config: str, glyphs: Glyphs) -> None:
    runs = history.runs
    print_labelled(console, "qgate:", f"{len(runs)} run{'s' * (len(runs) != 1)} of {config}")
    if history.unreadable:
        print_labelled(console, "note:", f"{history.unreadable} more cannot be read", STYLES["note"])
    for name in dict.fromkeys(model for run in runs for model in run.models):
        console.print()
        _print_model(console, name, runs, glyphs)
    if runs:
        console.print()
        console.print(_table(runs))
        if len(runs) > _RUNS:
            print_labelled(console, "and", f"{len(runs) - _RUNS} earlier ones; --json has them")


def _print_model(console: Console, name: str, runs: Sequence[Result], glyphs: Glyphs) -> None:
    series = _series(name, runs)
    table = new_table()
    add_columns(table, f"{printable(name)}: int8", "last", "before", "lowest", "highest")
    table.add_column("oldest to newest", no_wrap=True)
    room = max(_MIN_LINE, console.width - _LINE_WIDTH)
    for one in series:
        line = Text(sparkline(one.values[-room:], glyphs), style="cyan")
        table.add_row(Text(printable(one.name)), *_figures(one), line)
    console.print(table)
    for reason in dict.fromkeys(one.differences for one in series if one.differences):
        names = ", ".join(one.name for one in series if one.differences == reason)
        said = f"runs of {reason} than the last have no value here: {names}"
        print_labelled(console, f"{glyphs.gap}", said, "dim")


def _figures(one: _Series) -> list[str]:
    """Write the last value, the one before, the lowest and the highest."""
    write, known = one.unit.measured, one.known
    earlier = [value for value in one.values[:-1] if value is not None]
    figures = one.values[-1], earlier[-1] if earlier else None, min(known, default=None), max(known, default=None)
    return [optional(write, figure) for figure in figures]


def _series(name: str, runs: Sequence[Result]) -> list[_Series]:
    found = [_entries(run, name) for run in runs]
    return [_one_series(metric, found) for metric in dict.fromkeys(metric for one in found for metric in one)]


def _one_series(metric: str, found: Sequence[dict[str, Entry]]) -> _Series:
    entries = [one.get(metric) for one in found]
    last = next(entry for entry in reversed(entries) if entry)
    differences = [entry.differences(last.conditions) if entry else "" for entry in entries]
    values = tuple(entry.value if entry and not why else None for entry, why in zip(entries, differences, strict=True))
    return _Series(metric, values, " or ".join(dict.fromkeys(why for why in differences if why)))


def _table(runs: Sequence[Result]) -> Table:
    table = new_table()
    for heading in ("run", "commit", "gate"):
        table.add_column(heading, no_wrap=True)
    table.add_column("limits not held", overflow="fold")
    for run in reversed(runs[-_RUNS:]):
        when, commit, stands = run_label(run)
        stood = Text(stands, style=STYLES.get(stands.lower(), ""))
        table.add_row(when, commit or MISSING, stood, Text(printable(_missed(run))))
    return table


def _missed(run: Result) -> str:
    missed = [
        f"{name} {verdict.name}"
        for name, model in run.models.items()
        for verdict in model.verdicts
        if verdict.status != "passed"
    ]
    return ", ".join(missed)
