"""Small drawings of characters: an interval against its limit, shares, and a line of values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qgate.results import Interval

__all__ = ["ASCII", "UNICODE", "Glyphs", "Marks", "interval_bar", "share_bar", "sparkline"]

_MARGIN = 0.1


@dataclass(frozen=True)
class Glyphs:
    """The characters that drawings are made of; `ramp` rises, `gap` is where a line of values has none."""

    low: str
    high: str
    between: str
    measured: str
    limit: str
    measured_at_limit: str
    beyond: str
    share: str
    ramp: str
    gap: str


UNICODE = Glyphs("├", "┤", "─", "●", "┃", "◆", "░", "█", "▁▂▃▄▅▆▇█", "·")
ASCII = Glyphs("[", "]", "-", "o", "|", "X", ".", "#", "_,-~=+*#", ".")


@dataclass(frozen=True)
class Marks:
    """What stands on one scale: a measured value, its interval where it has one, and a limit.

    The scale reaches to 0 where `from_zero` says so, or where there is no interval: else it would have no measure.
    It goes on for a tenth where the limit would be its end, so that the limit's wrong side can be seen.
    """

    measured: float
    limit: float
    interval: Interval | None
    is_floor: bool
    from_zero: bool

    def scale(self) -> Interval:
        """Give the ends of the scale."""
        values = [self.measured, self.limit, *(self.interval or (0.0,)), *([0.0] if self.from_zero else [])]
        low, high = min(values), max(values)
        margin = (high - low) * _MARGIN or 1.0
        if self.is_floor:
            return (low - margin if self.limit == low else low), max(high, low + margin)
        return low, high + margin if self.limit == high else high


def interval_bar(marks: Marks, width: int, glyphs: Glyphs) -> list[tuple[str, str]]:
    """Draw marks on one scale of `width` cells; each cell has its character and what it says.

    That is "measured", "limit", "held" or "missed" (the interval on either side of the limit), "beyond" or "".
    """
    at_limit = _cell(marks.limit, marks.scale(), width)

    def is_beyond(cell: int) -> bool:
        return cell < at_limit if marks.is_floor else cell > at_limit

    cells = [(glyphs.beyond, "beyond") if is_beyond(cell) else (" ", "") for cell in range(width)]
    if marks.interval:
        first, last = (_cell(end, marks.scale(), width) for end in marks.interval)
        for cell in range(first, last + 1):
            glyph = glyphs.low if cell == first else glyphs.high if cell == last else glyphs.between
            cells[cell] = glyph, "missed" if is_beyond(cell) else "held"
    at_measured = _cell(marks.measured, marks.scale(), width)
    cells[at_limit] = glyphs.limit, "limit"
    cells[at_measured] = glyphs.measured_at_limit if at_measured == at_limit else glyphs.measured, "measured"
    return cells


def share_bar(share: float, width: int, glyphs: Glyphs) -> str:
    """Draw a share of a whole that is `width` cells long; what is not nothing has a cell at least."""
    cells = round(min(max(share, 0.0), 1.0) * width)
    return glyphs.share * (max(cells, min(width, 1)) if share > 0 else 0)


def sparkline(values: Sequence[float | None], glyphs: Glyphs) -> str:
    """Draw values one beside the other, from the lowest at the bottom to the highest at the top."""
    known = [value for value in values if value is not None]
    low, high = (min(known), max(known)) if known else (0.0, 0.0)
    top = len(glyphs.ramp) - 1

    def glyph(value: float) -> str:
        return glyphs.ramp[round((value - low) / (high - low) * top) if low < high else top // 2]

    return "".join(glyphs.gap if value is None else glyph(value) for value in values)


def _cell(value: float, scale: Interval, width: int) -> int:
    low, high = scale
    return round((value - low) / (high - low) * (width - 1))
