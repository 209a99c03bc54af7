"""Two runs side by side: what int8 gained or lost, how sure that is, and which verdicts changed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from qgate.blessed import conditions_of, measured_entries
from qgate.engine.regression import regression
from qgate.losers import NAMED_SUPPORT
from qgate.results import table_name

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qgate.blessed import Entry
    from qgate.results import Interval, ModelResult, Result, Status, Verdict

__all__ = ["ChangedFigure", "ChangedSlice", "ChangedVerdict", "Conclusion", "ModelChanges", "RunChanges", "compare"]

_WORST_SLICES = 5

Figures = dict[str, Any]
Conclusion = Literal["better", "worse", "same", "unclear", "not comparable", "missing"]


@dataclass(frozen=True)
class ChangedFigure:
    """One figure of int8 in two runs; `name` is that of the metric, or of its slice.

    `worse_by` is in the metric's unit, negative where the second run is better, and `interval` is its interval, where
    there is one: `unclear` is what it does not settle. `is_exact` says that chance has no part. `differences` say why
    the runs are not comparable.
    """

    name: str
    metric: str
    before: float | None
    after: float | None
    float32_before: float | None
    float32_after: float | None
    worse_by: float | None
    interval: Interval | None
    differences: str
    is_exact: bool
    higher_is_better: bool

    @property
    def conclusion(self) -> Conclusion:
        """Say what the change is, as far as it is known."""
        if self.before is None or self.after is None:
            return "missing"
        if self.differences or self.worse_by is None:
            return "not comparable"
        if self.worse_by == 0:
            return "same"
        if not (self.interval or self.is_exact):
            return "unclear"
        low, high = self.interval or (self.worse_by, self.worse_by)
        return "worse" if low > 0 else "better" if high < 0 else "unclear"


@dataclass(frozen=True)
class ChangedVerdict:
    """A limit in two runs; None stands for no verdict."""

    name: str
    before: Status | None
    after: Status | None
    limit_before: float | None
    limit_after: float | None

    @property
    def is_changed(self) -> bool:
        """True where the verdict is another."""
        return self.before != self.after

    @property
    def has_moved(self) -> bool:
        """True where the limit is another: then a verdict says nothing of the model alone."""
        return None not in (self.limit_before, self.limit_after) and self.limit_before != self.limit_after


@dataclass(frozen=True)
class ChangedSlice:
    """A slice of a metric in which int8 got worse, without an interval."""

    name: str
    metric: str
    before: float
    after: float
    worse_by: float
    support: int


@dataclass(frozen=True)
class ModelChanges:
    """One model in two runs; `slices` are those that got worse, `only_in` is the run (1 or 2) that alone has it."""

    figures: tuple[ChangedFigure, ...]
    verdicts: tuple[ChangedVerdict, ...]
    slices: tuple[ChangedSlice, ...]
    only_in: Literal[1, 2] | None = None


@dataclass(frozen=True)
class RunChanges:
    """Two runs, and each model that one of them has."""

    before: Result
    after: Result
    models: dict[str, ModelChanges]


def compare(before: Result, after: Result, confidence: float) -> RunChanges:
    """Compare two runs, figure by figure. Where both keep their resamples of the same data, as a pair."""
    names = dict.fromkeys((*before.models, *after.models))
    models = {name: _compare_models(before.models.get(name), after.models.get(name), confidence) for name in names}
    return RunChanges(before, after, models)


def _compare_models(before: ModelResult | None, after: ModelResult | None, confidence: float) -> ModelChanges:
    only_in: Literal[1, 2] | None = 2 if before is None else 1 if after is None else None
    figures = tuple(_figures(before, after, confidence))
    comparable = [figure.metric for figure in figures if figure.worse_by is not None]
    slices = [one for metric in dict.fromkeys(comparable) for one in _slices(metric, before, after)]
    worst = tuple(sorted(slices, key=lambda one: -one.worse_by)[:_WORST_SLICES])
    return ModelChanges(figures, tuple(_verdicts(before, after)), worst, only_in)


def _figures(before: ModelResult | None, after: ModelResult | None, confidence: float) -> Iterator[ChangedFigure]:
    entries = dict(measured_entries(before.metrics, before.conditions)) if before else {}
    old, new = _by_name(before), _by_name(after)
    for name in dict.fromkeys((*old, *new)):
        metric, was = old.get(name, ("", {}))
        metric, now = new.get(name, (metric, {}))
        change = _change(entries.get(name), now, after, confidence) if now else {}
        yield ChangedFigure(
            name,
            metric,
            _value(was),
            _value(now),
            was.get("baseline"),
            now.get("baseline"),
            change.get("regression"),
            change.get("regression_interval"),
            change.get("differences", ""),
            is_exact=not {"drop", "forms"} & now.keys(),
            higher_is_better=now.get("higher_is_better", True),
        )


def _change(entry: Entry | None, now: Figures, after: ModelResult | None, confidence: float) -> Figures:
    if entry is None or after is None or _value(now) is None:
        return {}
    differences = entry.differences(conditions_of(now, after.conditions))
    return {"differences": differences} if differences else regression(now, entry, confidence)


def _slices(metric: str, before: ModelResult | None, after: ModelResult | None) -> Iterator[ChangedSlice]:
    """Give the slices in which int8 got worse, of those that rest on enough targets to be named."""
    old, new = (model.metrics[metric] if model else {} for model in (before, after))
    sign = 1 if new.get("higher_is_better", True) else -1
    for kind, values in new.get("slices", {}).items():
        for name, now in values.items():
            was = old.get("slices", {}).get(kind, {}).get(name, {})
            was_int8, now_int8 = was.get("candidate"), now.get("candidate")
            if was_int8 is None or now_int8 is None or now["support"] < NAMED_SUPPORT:
                continue
            worse_by = sign * (was_int8 - now_int8)
            if worse_by > 0:
                yield ChangedSlice(f"{metric} {kind} {name}", metric, was_int8, now_int8, worse_by, now["support"])


def _by_name(model: ModelResult | None) -> dict[str, tuple[str, Figures]]:
    """Give each metric's figures, and those of the slices that limits name, with the metric's name."""
    found: dict[str, tuple[str, Figures]] = {}
    for metric, figures in model.metrics.items() if model else ():
        found[metric] = metric, figures
        for item in figures.get("limited_slices", ()):
            found[table_name(metric, item["where"])] = metric, item
    return found


def _value(figures: Figures) -> float | None:
    value: float | None = figures.get("value", figures.get("candidate"))
    return value


def _verdicts(before: ModelResult | None, after: ModelResult | None) -> Iterator[ChangedVerdict]:
    old, new = (_verdicts_by_name(model) for model in (before, after))
    for name in dict.fromkeys((*old, *new)):
        was, now = old.get(name), new.get(name)
        status_before, status_after = (verdict.status if verdict else None for verdict in (was, now))
        limit_before, limit_after = (verdict.limit_value if verdict else None for verdict in (was, now))
        yield ChangedVerdict(name, status_before, status_after, limit_before, limit_after)


def _verdicts_by_name(model: ModelResult | None) -> dict[str, Verdict]:
    return {verdict.name: verdict for verdict in model.verdicts} if model else {}
