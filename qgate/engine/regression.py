"""How much worse int8 is than the int8 that was blessed."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from qgate.blessed import conditions_of
from qgate.resampled import decode
from qgate.results import table_name
from qgate.statistics import bootstrap_interval

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from qgate.blessed import Entry
    from qgate.results import Interval

__all__ = ["regression", "with_regressions"]

Figures = dict[str, Any]


def with_regressions(
    metrics: Mapping[str, Figures],
    blessed: Mapping[str, Entry] | None,
    conditions: Mapping[str, Any],
    confidence: float,
) -> dict[str, Figures]:
    """Give a model's figures, each with `blessed`, `regression` (positive where int8 got worse) and its interval.

    Where the blessed value was measured otherwise, `not_comparable` says in which respect; where there is none,
    nothing is added. Slices are treated alike. `blessed` is None where these very figures are blessed.
    """

    def compared(name: str, figures: Figures) -> Figures:
        if blessed is None:
            return {**figures, **_unchanged(figures)}
        entry = blessed.get(name)
        if entry is None:
            return figures
        reason = entry.why_not_comparable(conditions_of(figures, conditions))
        if reason:
            return {**figures, "not_comparable": reason}
        return {**figures, **regression(figures, entry, confidence)}

    return {metric: _everywhere(metric, figures, compared) for metric, figures in metrics.items()}


def _everywhere(metric: str, figures: Figures, compared: Callable[[str, Figures], Figures]) -> Figures:
    """Apply `compared` to a metric and to the slices that limits name."""
    slices = [compared(table_name(metric, item["where"]), item) for item in figures.get("limited_slices", ())]
    return {**compared(metric, figures), **({"limited_slices": slices} if slices else {})}


def _unchanged(figures: Figures) -> Figures:
    value = _value(figures)
    if value is None or not math.isfinite(value):
        return {}
    is_known = figures.get("drop_interval") or figures.get("interval")  # else no later run could be compared with it
    interval = (0.0, 0.0) if is_known else None
    return {"blessed": value, "regression": 0.0, "regression_interval": interval, "blessing": True}


def regression(figures: Figures, entry: Entry, confidence: float) -> Figures:
    """Give `blessed`, `regression` and `regression_interval` of figures that are comparable with an entry."""
    value, sign = _value(figures), 1 if figures.get("higher_is_better", True) else -1
    worse_by = None if value is None else sign * (entry.value - value)
    interval: Interval | None = None
    if figures.get("resampled") and entry.resampled:
        resampled = sign * (decode(entry.resampled) - decode(figures["resampled"]))
        interval = bootstrap_interval(resampled, worse_by, figures["samples"], confidence)
    elif figures.get("interval") and entry.interval:
        interval = _interval_of_difference(entry.value, entry.interval, figures["value"], figures["interval"])
    return {"blessed": entry.value, "regression": worse_by, "regression_interval": interval}


def _value(figures: Figures) -> float | None:
    value: float | None = figures["value"] if "value" in figures else figures["candidate"]
    return value


def _interval_of_difference(one: float, of_one: Interval, other: float, of_other: Interval) -> Interval:
    """Give the interval of `one - other`, which were measured independently of each other: two speedups.

    Each bound adds up, as variances do, what the two figures may be off in its direction. Source: Zou and Donner,
    Construction of confidence limits about effect measures (2008).
    """
    down = math.hypot(one - of_one[0], of_other[1] - other)
    up = math.hypot(of_one[1] - one, other - of_other[0])
    return one - other - down, one - other + up
