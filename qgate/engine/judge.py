"""Figures against limits: one verdict a limit, and what could not be measured has not passed."""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING, Any

from qgate.blessed import HOW_TO_BLESS
from qgate.engine.messages import Finding, say_lost, say_missed, say_unsettled
from qgate.results import Verdict
from qgate.statistics import judge_interval, samples_needed

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from qgate.config.model import ThresholdConfig
    from qgate.results import Interval

__all__ = ["judge"]

Figures = dict[str, Any]


def judge(
    tables: Iterable[ThresholdConfig], metrics: Mapping[str, Figures], reason: str, num_samples: int
) -> tuple[Verdict, ...]:
    """Judge every limit of every table. A metric without figures is an error, and `reason` says why there are none.

    `num_samples` is the number of samples that accuracy rests on.
    """
    return tuple(
        _judge_limit(table, limit, _figures_of(table, metrics), reason, num_samples)
        for table in tables
        for limit in table.limits
    )


def _figures_of(table: ThresholdConfig, metrics: Mapping[str, Figures]) -> Figures | None:
    figures = metrics.get(table.metric)
    if figures is None or table.where is None:
        return figures
    return next((found for found in figures["limited_slices"] if found["where"] == table.where), None)


def _judge_limit(table: ThresholdConfig, limit: str, figures: Figures | None, reason: str, num_samples: int) -> Verdict:
    line = table.limit_places.get(limit, table.place).line
    verdict = partial(Verdict, table.metric, limit, table.limits[limit], slice=table.where, line=line)
    if figures is None:
        return verdict(None, "error", f"not measured: {reason}")
    measured, interval = _measured(table, limit, figures)
    unjudgeable = (
        _too_small(table, figures) or _why_undefined(limit, measured, figures) or _why_vacuous(table, limit, figures)
    )
    if measured is None or unjudgeable:
        return verdict(None, "error", unjudgeable)
    return _judge_figure(Finding(table, limit, measured, interval, figures), verdict, num_samples)


def _judge_figure(finding: Finding, verdict: partial[Verdict], num_samples: int) -> Verdict:
    lost = finding.lost_slices
    if lost:
        return verdict(finding.measured, "failed", say_lost(finding, lost), interval=finding.interval)
    interval = (finding.measured, finding.measured) if finding.is_exact else finding.interval
    status = judge_interval(interval, finding.allowed, floor=finding.is_floor) if interval else "inconclusive"
    found = partial(verdict, finding.measured, status, interval=finding.interval)
    if status == "passed":
        return found("")
    if status == "failed":
        return found(say_missed(finding))
    needed = None
    if interval and not finding.is_speed:
        needed = samples_needed(num_samples, finding.measured, interval, finding.allowed)
    return found(say_unsettled(finding, needed), samples_needed=needed)


def _measured(table: ThresholdConfig, limit: str, figures: Figures) -> tuple[float | None, Interval | None]:
    """Give what a limit is compared with, and its interval."""
    if limit == "max_drop":
        prefix = "" if table.drop_type == "absolute" else "relative_"
        return figures[f"{prefix}drop"], figures[f"{prefix}drop_interval"]
    if limit == "max_regression":
        return figures.get("regression"), figures.get("regression_interval")
    return (figures["value"], figures.get("interval")) if "value" in figures else (figures["candidate"], None)


def _too_small(table: ThresholdConfig, figures: Figures) -> str:
    if table.where is None or figures["support"] >= table.min_samples:
        return ""
    return (
        f"the slice rests on {figures['support']} targets, fewer than min_samples = {table.min_samples}; "
        "evaluate on more data, or lower min_samples if so few will do"
    )


def _why_vacuous(table: ThresholdConfig, limit: str, figures: Figures) -> str:
    """Say why nothing could be lost. A slice that float32 cannot do is no news: there may be many of them."""
    is_nothing = figures.get("compares_with") == "targets" and figures["baseline"] == figures["candidate"] == 0
    if limit != "max_drop" or table.where is not None or not (is_nothing and figures["higher_is_better"]):
        return ""
    return "float32 itself scores 0, so nothing can drop; see that targets, class names and postprocess fit the model"


def _why_undefined(limit: str, measured: float | None, figures: Figures) -> str:
    if limit == "max_regression" and measured is None:
        nothing = f"there are no blessed results to compare with; write them: {HOW_TO_BLESS}"
        return str(figures.get("not_comparable", nothing))
    if measured is not None and math.isfinite(measured):
        return ""
    return f"undefined (float32 {figures['baseline']}, int8 {figures['candidate']}); a missing value has not passed"
