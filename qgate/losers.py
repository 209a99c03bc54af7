"""Which slices of a metric lost most by int8."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["NAMED_SUPPORT", "losers"]

NAMED_SUPPORT = 10  # a slice of fewer targets is not worth naming

Figures = dict[str, Any]


def losers(values: Mapping[str, Figures], count: int) -> list[tuple[str, Figures]]:
    """Give the slices of one kind that lost most, the worst first, at most `count` of them.

    Those that lost nothing, or rest on fewer than `NAMED_SUPPORT` targets, are none.
    """
    lost = [item for item in values.items() if (item[1].get("support") or 0) >= NAMED_SUPPORT and _drop(item[1]) > 0]
    return sorted(lost, key=lambda item: -_drop(item[1]))[:count]


def _drop(figures: Figures) -> float:
    drop = figures.get("drop")
    return drop if isinstance(drop, int | float) and math.isfinite(drop) else 0.0
