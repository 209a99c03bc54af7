"""The table that `qgate report`, `qgate check` and `pytest --qgate` end with."""

from __future__ import annotations

import io
from dataclasses import astuple
from typing import TYPE_CHECKING

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from qgate.reporting.rows import HEADINGS, caption, footer, headline, models_worst_first, rows

if TYPE_CHECKING:
    from qgate.results import ModelResult, Result

_STYLES = {"passed": "green", "failed": "bold red", "error": "bold red", "inconclusive": "yellow"}


def render(result: Result, *, width: int = 80, color: bool = False) -> str:
    """Give the verdict, then a table a model, the worst first, as text for `width` columns."""
    stream = io.StringIO()
    _print(Console(file=stream, width=width, force_terminal=color, no_color=not color), result)
    return "\n".join(line.rstrip() for line in stream.getvalue().splitlines()) + "\n"


def _print(console: Console, result: Result) -> None:
    line = headline(result)
    status = next(iter(line.removeprefix("qgate: ").split(",")))
    console.print(Text(line, style=_STYLES.get(status.lower(), "")))
    for name, model in models_worst_first(result):
        console.print()
        _print_model(console, name, model)


def _print_model(console: Console, name: str, model: ModelResult) -> None:
    console.print(Text(caption(name, model)))
    if model.verdicts:
        console.print(_table(model))
    for label, text in footer(model):
        console.print(Text(f"{label}: ", style=_STYLES.get(label, "dim")), end="")
        _print_hanging(console, text, indent=len(label) + 2)


def _print_hanging(console: Console, text: str, indent: int) -> None:
    """Print `text` after a label of `indent` columns, wrapped below itself."""
    lines = Text(text).wrap(console, max(console.width - indent, 20))
    for index, line in enumerate(lines):
        console.print(line if index == 0 else Padding(line, (0, 0, 0, indent)))


def _table(model: ModelResult) -> Table:
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="dim")
    table.add_column(HEADINGS[0], overflow="fold")
    for heading in HEADINGS[1:-1]:
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column(HEADINGS[-1], no_wrap=True)
    for row in rows(model):
        *cells, status = astuple(row)
        table.add_row(*(Text(cell) for cell in cells), Text(status, style=_STYLES[status]))
    return table
