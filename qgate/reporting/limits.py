"""The table of a model's limits, in the widest layout that fits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.measure import Measurement
from rich.text import Text

from qgate.reporting.bars import interval_bar
from qgate.reporting.rows import marks_of, rows, worst_first
from qgate.reporting.tables import STYLES, new_table
from qgate.reporting.text import printable

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from qgate.reporting.bars import Glyphs
    from qgate.reporting.rows import Row
    from qgate.results import ModelResult, Verdict

__all__ = ["fitting_table"]

_UNLIMITED = 10_000
_NAME, _WRAPPED_NAME = 26, 14  # "size_reduction lower_bound", in one line and in two
_MIN_BAR, _MAX_BAR = 14, 40
_LEFT = ("limit", "", "verdict")
_CELLS = {"held": "green", "missed": "red", "limit": "bold", "measured": "bold cyan", "beyond": "dim"}


@dataclass(frozen=True)
class _Layout:
    """What is shown of a limit; with `is_stacked` its interval stands below its bar, and `name` is a name's width."""

    columns: tuple[str, ...]
    name: int
    is_stacked: bool = False


_ARMS = ("float32", "int8")
_LAYOUTS = (
    _Layout(("limit", *_ARMS, "measured", "interval", "", "required", "margin", "verdict"), _NAME),
    _Layout(("limit", *_ARMS, "measured", "interval", "", "required", "verdict"), _NAME),
    _Layout(("limit", *_ARMS, "measured", "interval", "required", "verdict"), _NAME, is_stacked=True),
    _Layout(("limit", *_ARMS, "measured", "interval", "required", "verdict"), _WRAPPED_NAME, is_stacked=True),
    _Layout(("limit", "measured", "interval", "required", "verdict"), _WRAPPED_NAME, is_stacked=True),
)


def fitting_table(console: Console, model: ModelResult, glyphs: Glyphs) -> Table:
    """Give the table of a model's limits; names have the room that they need, and bars what is left."""
    limits = list(zip(worst_first(model), rows(model), strict=True))
    layout = next((one for one in _LAYOUTS if _room(console, _table(limits, one, glyphs)) >= 0), _LAYOUTS[-1])
    name = layout.name + max(0, _room(console, _table(limits, layout, glyphs)))
    room = max(0, _room(console, _table(limits, layout, glyphs, name=name)))
    return _table(limits, layout, glyphs, name=name, bar=min(_MIN_BAR + room, _MAX_BAR))


def _room(console: Console, table: Table) -> int:
    """Give how many columns a table leaves, less than 0 where it is too wide."""
    return console.width - Measurement.get(console, console.options.update(max_width=_UNLIMITED), table).maximum


def _table(
    limits: list[tuple[Verdict, Row]],
    layout: _Layout,
    glyphs: Glyphs,
    *,
    name: int | None = None,
    bar: int = _MIN_BAR,
) -> Table:
    table = new_table()
    for column in layout.columns:
        is_name = column == "limit"
        width = (name or layout.name) if is_name else None
        table.add_column(
            column,
            justify="left" if column in _LEFT or (column == "interval" and layout.is_stacked) else "right",
            no_wrap=not is_name,
            overflow="fold",
            max_width=width,
        )
    for verdict, row in limits:
        drawn = _bar(verdict, bar, glyphs)
        table.add_row(*(_cell(column, row, drawn, is_stacked=layout.is_stacked) for column in layout.columns))
    return table


def _cell(column: str, row: Row, drawn: Text, *, is_stacked: bool) -> Text:
    if column == "":
        return drawn
    if column == "limit":
        return Text(printable(row.name))
    if column == "interval":
        spread = Text(row.interval)
        return Text("\n").join([drawn, *[spread] * bool(row.interval)]) if is_stacked else spread
    if column == "verdict":
        return Text(row.status, style=STYLES.get(row.status, ""))
    shown = {"float32": row.baseline, "int8": row.candidate, "measured": row.measured, "required": row.limit}
    return Text({**shown, "margin": row.margin}[column])


def _bar(verdict: Verdict, width: int, glyphs: Glyphs) -> Text:
    marks = marks_of(verdict)
    cells = interval_bar(marks, width, glyphs) if marks else []
    return Text.assemble(*((glyph, _CELLS.get(kind, "")) for glyph, kind in cells))
