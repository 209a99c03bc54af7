"""How much worse int8 is than the int8 that was blessed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qgate.blessed import conditions_of
from qgate.resampled import decode
from qgate.results import table_name
from qgate.statistics import bootstrap_interval

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from qgate.blessed import Entry
    from qgate.results import Interval

__all__ = ["with_regressions"]

Figures = dict[str, Any]


def with_regressions(
    metrics: Mapping[str, Figures],
    blessed: Mapping[str, Entry],
    conditions: Mapping[str, Any],
    *,
    num_samples: int,
    confidence: float,
) -> dict[str, Figures]:
    """Give a model's figures, each with `blessed`, `regression` (positive where int8 got worse) and its interval.

    Where the blessed value was measured otherwise, `not_comparable` says in which respect; where there is none,
    nothing is added. Slices are treated alike.
    """

    def compared(name: str, figures: Figures) -> Figures:
        entry = blessed.get(name)
        if entry is None:
            return figures
        reason = entry.why_not_comparable(conditions_of(figures, conditions))
        if reason:
            return {**figures, "not_comparable": reason}
        samples = min(num_samples, figures.get("support", num_samples))
        return {**figures, **_regression(figures, entry, samples, confidence)}

    return {metric: _everywhere(metric, figures, compared) for metric, figures in metrics.items()}


def _everywhere(metric: str, figures: Figures, compared: Callable[[str, Figures], Figures]) -> Figures:
    """Apply `compared` to a metric and to the slices that limits name."""
    slices = [compared(table_name(metric, item["where"]), item) for item in figures.get("limited_slices", ())]
    return {**compared(metric, figures), **({"limited_slices": slices} if slices else {})}


def _regression(figures: Figures, entry: Entry, num_samples: int, confidence: float) -> Figures:
    value = figures["value"] if "value" in figures else figures["candidate"]
    sign = 1 if figures.get("higher_is_better", True) else -1
    regression = None if value is None else sign * (entry.value - value)
    interval: Interval | None = None
    if figures.get("resampled") and entry.resampled:
        resampled = sign * (decode(entry.resampled) - decode(figures["resampled"]))
        interval = bootstrap_interval(resampled, regression, num_samples, confidence)
    elif figures.get("interval"):  # of a speedup: the blessed one is taken as it stands
        low, high = figures["interval"]
        interval = entry.value - high, entry.value - low
    return {"blessed": entry.value, "regression": regression, "regression_interval": interval}
