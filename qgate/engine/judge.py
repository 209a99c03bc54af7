"""Figures against limits: one verdict a limit, and what could not be measured has not passed."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from qgate.results import Verdict

if TYPE_CHECKING:
    from collections.abc import Mapping

    from qgate.config.model import ThresholdConfig

__all__ = ["judge"]

Figures = dict[str, Any]


def judge(
    thresholds: Mapping[str, ThresholdConfig], metrics: Mapping[str, Figures], reason: str
) -> tuple[Verdict, ...]:
    """Judge every limit. A metric without figures is an error, and `reason` says why there are none."""
    return tuple(
        _judge_limit(threshold, limit, value, metrics.get(threshold.metric), reason)
        for threshold in thresholds.values()
        for limit, value in threshold.limits.items()
    )


def _judge_limit(threshold: ThresholdConfig, limit: str, value: float, figures: Figures | None, reason: str) -> Verdict:
    metric = threshold.metric
    if figures is None:
        return Verdict(metric, limit, value, None, "error", f"not measured: {reason}")
    measured = _measured(threshold, limit, figures)
    if measured is None or not math.isfinite(measured):
        return Verdict(
            metric, limit, value, None, "error", f"{_why_undefined(limit, figures)}; a missing value has not passed"
        )
    # A difference of two values that meets its limit exactly may miss it by the rounding of float64.
    equal = math.isclose(measured, value, rel_tol=1e-9, abs_tol=1e-12)
    passed = equal or (measured >= value if limit == "lower_bound" else measured <= value)
    message = "" if passed else _miss(threshold, limit, value, measured, figures)
    return Verdict(metric, limit, value, measured, "passed" if passed else "failed", message)


def _measured(threshold: ThresholdConfig, limit: str, figures: Figures) -> float | None:
    if limit == "max_drop":
        drop: float = figures["drop"]
        if threshold.drop_type == "absolute":
            return drop
        return drop / abs(figures["baseline"]) if figures["baseline"] else None
    if limit == "max_regression":
        return None
    value: float | None = figures["value"] if "value" in figures else figures["candidate"]
    return value


def _why_undefined(limit: str, figures: Figures) -> str:
    if limit == "max_regression":
        return "there are no blessed results to compare with"
    return f"undefined (float32 {figures['baseline']}, int8 {figures['candidate']})"


def _miss(threshold: ThresholdConfig, limit: str, value: float, measured: float, figures: Figures) -> str:
    if limit == "max_drop":
        percent = threshold.drop_type == "relative"
        said = f"{measured:.2%} of" if percent else f"{measured:.4f} from"
        allowed = f"{value:.2%}" if percent else f"{value:.4f}"
        moved = "fell" if figures["candidate"] <= figures["baseline"] else "rose"
        change = f"{moved} by {said} float32's {figures['baseline']:.4f}, to {figures['candidate']:.4f}"
        return f"{change}; allowed is {allowed}"
    if "value" in figures:
        return f"is {measured:.3f}, at least {value:g} is required{_against(figures)}"
    relation = "at least" if limit == "lower_bound" else "at most"
    return f"is {measured:.4f} in int8, {relation} {value:g} is required (float32 has {figures['baseline']:.4f})"


def _against(figures: Figures) -> str:
    return f" (against float32's {figures['baseline_form']} form)" if "baseline_form" in figures else ""
