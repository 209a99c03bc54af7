"""Whether limits on accuracy hold on held-out samples, as far as those can tell."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from qgate.engine.judge import judge
from qgate.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from qgate.config.model import ThresholdConfig
    from qgate.results import Verdict

__all__ = ["missed_limits"]

Figures = dict[str, Any]


def missed_limits(
    tables: Iterable[ThresholdConfig],
    figures: Mapping[str, Figures],
    num_held_out: int,
    num_evaluation: int,
    *,
    sure: bool,
) -> list[Verdict]:
    """List the limits that int8 does not keep on held-out samples.

    With `sure`, the whole interval of a drop must keep its limit: that which it would have on as many samples as the
    gate will judge by. Without, the measured drop must. What held-out samples cannot tell is left out: regressions,
    limits that float32 itself misses there, and slices of too few targets. Raises `DataError` where nothing is left.
    """
    scale = math.sqrt(num_held_out / num_evaluation) if sure else 0.0
    scaled = {name: _scaled(item, scale) for name, item in figures.items()}
    tellable = [_tellable(table, figures[table.metric]) for table in tables if table.metric in figures]
    verdicts = judge(tellable, scaled, "", num_held_out)
    judged = [verdict for verdict in verdicts if verdict.status != "error"]
    if not judged:
        raise DataError("no limit on accuracy can be judged on held-out samples")
    return [verdict for verdict in judged if verdict.status != "passed"]


def _tellable(table: ThresholdConfig, figures: Figures) -> ThresholdConfig:
    """Give the table without regressions and without what float32 does not keep either."""
    slices = (item["baseline"] for item in figures["limited_slices"] if item["where"] == table.where)
    baseline = next(slices, figures["baseline"])
    kept = {
        limit: value
        for limit, value in table.limits.items()
        if limit == "max_drop"
        or (limit == "lower_bound" and baseline >= value)
        or (limit == "upper_bound" and baseline <= value)
    }
    return replace(table, limits=kept)


def _scaled(figures: Figures, scale: float) -> Figures:
    """Give figures whose drops have intervals of another width; without an interval, that of the drop alone."""
    changed: Figures = {}
    for kind in ("drop", "relative_drop"):
        drop = figures.get(kind)
        if drop is not None:
            low, high = figures.get(f"{kind}_interval") or (drop, drop)
            changed[f"{kind}_interval"] = (drop + scale * (low - drop), drop + scale * (high - drop))
    slices = [_scaled(item, scale) for item in figures.get("limited_slices", ())]
    return {**figures, **changed, "limited_slices": slices}
