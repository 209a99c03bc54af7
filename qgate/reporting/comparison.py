"""Models that are candidates for one thing, side by side: those of one float32 arm, judged on the same data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from qgate.config.model import CORE_METRICS
from qgate.reporting.figures import optional, unit_of
from qgate.reporting.rows import worst_first

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qgate.results import ModelResult, Result

__all__ = ["Comparison", "comparisons"]

_SPEED = "speedup"


@dataclass(frozen=True)
class Comparison:
    """A table as text: float32 first, then one row a model, in the order of `qgate.toml`."""

    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def comparisons(result: Result) -> Iterator[Comparison]:
    """Give a table for every group of models that share weights and data."""
    groups: list[dict[str, ModelResult]] = []
    for name, model in result.models.items():
        same = next((group for group in groups if _share_float32(model, next(iter(group.values())))), None)
        if same is None:
            groups.append({name: model})
        else:
            same[name] = model
    yield from (_table(group) for group in groups if len(group) > 1)


def _share_float32(one: ModelResult, other: ModelResult) -> bool:
    """Say whether two runs compared with the same float32: same conditions, same values to the last digit."""
    common = (one.metrics.keys() & other.metrics.keys()) - {_SPEED}
    measured = [(one.metrics[name].get("baseline"), other.metrics[name].get("baseline")) for name in common]
    judged_alike = bool(one.conditions) and one.conditions == other.conditions
    return judged_alike and bool(measured) and all(its == others for its, others in measured)


def _table(group: dict[str, ModelResult]) -> Comparison:
    measured = dict.fromkeys(name for model in group.values() for name in model.metrics if name != _SPEED)
    metrics = sorted(measured, key=lambda name: name in CORE_METRICS)  # accuracy first
    first = {name: _first(group, name) for name in metrics}
    float32 = ("float32", *(optional(unit_of(name).arm, first[name]) for name in metrics), "", "", "")
    rows = [
        (name, *(_candidate(model, metric) for metric in metrics), *_ending(model)) for name, model in group.items()
    ]
    return Comparison(("", *metrics, "time", _SPEED, "verdict"), (float32, *rows))


def _first(group: dict[str, ModelResult], metric: str) -> float | None:
    return next((model.metrics[metric].get("baseline") for model in group.values() if metric in model.metrics), None)


def _candidate(model: ModelResult, metric: str) -> str:
    return optional(unit_of(metric).arm, model.metrics.get(metric, {}).get("candidate"))


def _ending(model: ModelResult) -> tuple[str, str, str]:
    """Give int8's time, its speedup and the worst verdict."""
    speed: dict[str, Any] = model.metrics.get(_SPEED, {})
    unit = unit_of(_SPEED)
    verdicts = worst_first(model)
    worst = verdicts[0].status if verdicts else "error"
    return optional(unit.arm, speed.get("candidate")), optional(unit.measured, speed.get("value")), worst
