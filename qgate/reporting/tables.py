"""The tables below the limits: slices that lost most, the times of the forms, the layers that cost most."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from qgate.reporting.bars import share_bar
from qgate.reporting.figures import milliseconds, optional
from qgate.reporting.sections import forms, loser_cells, slowest, worst_slices
from qgate.reporting.text import printable

if TYPE_CHECKING:
    from qgate.reporting.bars import Glyphs
    from qgate.reporting.comparison import Comparison
    from qgate.results import ModelResult

__all__ = ["STYLES", "add_columns", "comparison_table", "forms_table", "layers_table", "losers_table", "new_table"]

STYLES = {
    **dict.fromkeys(("passed", "better"), "bold green"),
    **dict.fromkeys(("failed", "error", "missing", "worse"), "bold red"),
    **dict.fromkeys(("inconclusive", "partial", "note"), "yellow"),
    "next": "bold cyan",
}
_BAR = 20
_LOSERS_WIDTH, _FORMS_WIDTH = 70, 40  # of the tables without their bars


def new_table() -> Table:
    """Give a table without lines, its headings dim."""
    return Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="dim")


def add_columns(table: Table, name: str, *figures: str) -> None:
    """Add a column of names, which may be folded, and columns of figures, which may not."""
    table.add_column(Text(printable(name)), overflow="fold")
    for heading in figures:
        table.add_column(Text(printable(heading)), justify="right", no_wrap=True)


def comparison_table(comparison: Comparison) -> Table:
    """Give candidates side by side; float32 stands first."""
    table = new_table()
    table.title, table.title_justify = Text("side by side, with the same float32 on the same data"), "left"
    name, *figures, verdict = comparison.headings
    add_columns(table, name, *figures)
    table.add_column(verdict)
    for *cells, status in comparison.rows:
        table.add_row(*(Text(printable(cell)) for cell in cells), Text(status, style=STYLES.get(status, "")))
    return table


def losers_table(model: ModelResult, glyphs: Glyphs, width: int) -> Table | None:
    """Give the slices that lost most, each with its drop as a share of its metric's greatest; None where none lost."""
    found = worst_slices(model)
    if not found:
        return None
    table = new_table()
    add_columns(table, "lost most", "float32", "int8", "drop")
    table.add_column("", no_wrap=True, style="red")
    for heading in ("interval" if any(loser.interval for loser in found) else "", "targets"):
        table.add_column(heading, justify="right", no_wrap=True)
    greatest = {loser.metric: max(one.drop for one in found if one.metric == loser.metric) for loser in found}
    bar = max(0, min(_BAR // 2, width - _LOSERS_WIDTH))
    for loser in found:
        name, *figures, interval, support = map(printable, loser_cells(loser))
        drawn = share_bar(loser.drop / greatest[loser.metric], bar, glyphs)
        table.add_row(*map(Text, (name, *figures, drawn, interval, support)))
    return table


def forms_table(model: ModelResult, glyphs: Glyphs, width: int) -> Table | None:
    """Give the time of every form, drawn as a share of the slowest; None where nothing was timed."""
    found = forms(model)
    if not found:
        return None
    table = new_table()
    add_columns(table, "speed", "time")
    table.add_column("", no_wrap=True)
    table.add_column("")
    bar = max(0, min(_BAR, width - _FORMS_WIDTH))
    for form in found:
        drawn = Text(share_bar(form.seconds / (found[0].seconds or 1.0), bar, glyphs), style="blue")
        said = Text("compared with" if form.is_baseline else "", style="dim")
        table.add_row(Text(printable(form.name)), milliseconds(form.seconds), drawn, said)
    return table


def layers_table(model: ModelResult) -> Table | None:
    """Give the layers that cost int8 most where a speed was missed; None where they are not known."""
    found = slowest(model)
    if not found:
        return None
    table = new_table()
    add_columns(table, "most time is lost in", "float32", "int8")
    for layer in found:
        times = (optional(milliseconds, layer.get(arm)) for arm in ("float32", "int8"))
        table.add_row(Text(printable(str(layer.get("layer")))), *times)
    return table
