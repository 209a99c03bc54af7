"""Numbers as text, in the units that a reader expects."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from qgate.results import Interval

MISSING = "-"


@dataclass(frozen=True)
class Unit:
    """How the figures of a metric are written.

    `arm` is for the value of one arm, `measured` for what a limit is compared with, `limit` for the limit itself,
    which is written as the user wrote it, never rounded.
    """

    arm: Callable[[float], str]
    measured: Callable[[float], str]
    limit: Callable[[float], str]

    def margin(self, value: float) -> str:
        """Write a margin with its sign; one too small for the usual digits is not rounded to nothing."""
        text = f"{'-' if value < 0 else '+'}{self.measured(abs(value))}"
        return text if value == 0 or any(digit in "123456789" for digit in text) else f"{value:+.0e}"


def unit_of(metric: str) -> Unit:
    """Choose the unit of a metric: the core's own have theirs, any other is a plain number."""
    return _CORE.get(metric, _PLAIN)


def number(value: float) -> str:
    """Write a plain number: four decimals for scores, fewer for what is large."""
    return f"{value:.4f}" if abs(value) < 10 else f"{value:.5g}"  # noqa: PLR2004


def megabytes(value: float) -> str:
    """Write bytes as MB of a million bytes."""
    return f"{value / 1e6:.2f} MB"


def milliseconds(value: float) -> str:
    """Write seconds as ms."""
    return f"{value * 1e3:.1f} ms" if value >= 1e-3 else f"{value * 1e3:.3f} ms"  # noqa: PLR2004


def seconds(value: float) -> str:
    """Write a wall time."""
    return f"{value:.1f} s"


def optional(write: Callable[[float], str], value: float | None) -> str:
    """Write `value`, or a dash where there is none."""
    return MISSING if value is None or math.isnan(value) else write(value)


def between(unit: Unit, interval: Interval | None) -> str:
    """Write an interval, "" where there is none."""
    return f"{unit.measured(interval[0])}..{unit.measured(interval[1])}" if interval else ""


def _plain(value: float) -> str:
    return f"{value:g}"


def _percent(value: float) -> str:
    return f"{value:.1%}"


def _plain_percent(value: float) -> str:
    return f"{value * 100:g}%"


def _times(value: float) -> str:
    return f"{value:.2f}x"


def _plain_times(value: float) -> str:
    return f"{value:g}x"


_PLAIN = Unit(number, number, _plain)
_CORE = {
    "size_reduction": Unit(megabytes, _percent, _plain_percent),
    "speedup": Unit(milliseconds, _times, _plain_times),
}
