"""The table that `qgate report`, `qgate check` and `pytest --qgate` end with."""

from __future__ import annotations

import io
import textwrap
from dataclasses import astuple
from typing import TYPE_CHECKING

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from qgate.reporting.comparison import comparisons
from qgate.reporting.rows import HEADINGS, KEPT_TOGETHER, caption, footer, headline, models_worst_first, rows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qgate.reporting.comparison import Comparison
    from qgate.results import ModelResult, Result

_UNLIMITED = 10_000
_MARGIN = HEADINGS.index("margin")
_STYLES = {
    "passed": "green",
    **dict.fromkeys(("failed", "error"), "bold red"),
    **dict.fromkeys(("inconclusive", "partial", "note"), "yellow"),
}


def render(result: Result, *, width: int = 80, color: bool = False) -> str:
    """Give the verdict, then a table a model, the worst first, as text for `width` columns."""
    stream = io.StringIO()
    _print(Console(file=stream, width=width, force_terminal=color, no_color=not color), result)
    return "\n".join(line.rstrip() for line in stream.getvalue().splitlines()) + "\n"


def _print(console: Console, result: Result) -> None:
    label, _, line = headline(result).partition(" ")
    status = line.partition(",")[0].lower()
    _print_labelled(console, label, line, _STYLES.get(status, ""))
    if result.not_judged:
        _print_labelled(console, "not judged:", "; ".join(result.not_judged), "yellow")
    for comparison in comparisons(result):
        console.print()
        _print_comparison(console, comparison)
    for name, model in models_worst_first(result):
        console.print()
        _print_model(console, name, model)


def _print_comparison(console: Console, comparison: Comparison) -> None:
    console.print(Text("side by side, with the same float32 on the same data"))
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="dim")
    for place, heading in enumerate(comparison.headings):
        is_text = place in {0, len(comparison.headings) - 1}
        table.add_column(heading, justify="left" if is_text else "right", overflow="fold")
    for *cells, verdict in comparison.rows:
        table.add_row(*map(Text, cells), Text(verdict, style=_STYLES.get(verdict, "")))
    console.print(table)


def _print_model(console: Console, name: str, model: ModelResult) -> None:
    console.print(Text(caption(name, model)))
    if model.verdicts:
        console.print(_fitting_table(console, model))
    for label, text in footer(model):
        _print_labelled(console, f"{label}:", text, _STYLES.get(label, ""))


def _print_labelled(console: Console, label: str, text: str, style: str) -> None:
    """Print `text` after a label in `style`, wrapped below itself between words; a path stays whole."""
    indent = " " * (len(label) + 1)
    wrapped = textwrap.wrap(
        f"{label} {text}",
        console.width,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )
    content = Text("\n".join(wrapped).replace(KEPT_TOGETHER, " "))
    content.stylize(style, 0, len(label))
    console.print(content, soft_wrap=True)


def _fitting_table(console: Console, model: ModelResult) -> Table:
    """Give the table, without the margins where it would be too wide: they can be seen from the other figures."""
    every = range(len(HEADINGS))
    table = _table(model, every)
    unlimited = console.options.update(max_width=_UNLIMITED)
    if Measurement.get(console, unlimited, table).maximum <= console.width:
        return table
    return _table(model, [column for column in every if column != _MARGIN])


def _table(model: ModelResult, columns: Sequence[int]) -> Table:
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="dim")
    for column in columns:
        is_text = column in (0, len(HEADINGS) - 1)
        table.add_column(HEADINGS[column], justify="left" if is_text else "right", no_wrap=column > 0, overflow="fold")
    for row in rows(model):
        cells = astuple(row)
        table.add_row(*(Text(cells[column], style=_STYLES.get(cells[column], "")) for column in columns))
    return table
