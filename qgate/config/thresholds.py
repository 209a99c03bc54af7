"""The `[models.X.thresholds.METRIC]` tables: every one must hold at least one limit."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

from qgate.config.binder import Key, bind_key, bind_keys, convert, expect_table
from qgate.config.document import did_you_mean
from qgate.config.model import CORE_METRICS, ThresholdConfig

if TYPE_CHECKING:
    from qgate.config.document import Cursor
    from qgate.plugins import Kind
    from qgate.protocols import Metric

DROP_TYPE = Key("drop_type", Literal["absolute", "relative"], ThresholdConfig.drop_type)
WHERE = Key("where", dict[str, str])
MIN_SAMPLES = Key("min_samples", int, ThresholdConfig.min_samples, {"minimum": 1})


def limits(*, core: bool, higher_is_better: bool = True) -> tuple[str, ...]:
    """Name the limits that a metric may have."""
    bound = "lower_bound" if higher_is_better else "upper_bound"
    return (bound, "max_regression") if core else ("max_drop", bound, "max_regression")


def bind_thresholds(table: Cursor, metrics: Kind[Metric]) -> dict[str, ThresholdConfig]:
    """Read all thresholds of a model. Raises `ConfigError`, also where there are none: nothing would be judged."""
    if not expect_table(table).value:
        raise table.error("holds no table of a metric, so nothing would be judged; add one")
    return {metric: _bind_threshold(metric, cursor, metrics) for metric, cursor in table.children()}


def _bind_threshold(metric: str, table: Cursor, metrics: Kind[Metric]) -> ThresholdConfig:
    allowed = _limits_of(metric, table, metrics)
    if metric in CORE_METRICS or "slices" not in expect_table(table).value:
        return _bind_limits(metric, table, allowed)
    slices = _bind_slices(metric, table.child("slices"), allowed)
    return replace(_bind_limits(metric, table, allowed, others=("slices",), optional=True), slices=slices)


def _bind_limits(
    metric: str, table: Cursor, allowed: tuple[str, ...], others: tuple[str, ...] = (), *, optional: bool = False
) -> ThresholdConfig:
    keys = [Key(limit, float, None) for limit in allowed]
    _check_bound(metric, table, allowed)
    values = bind_keys(table, [*keys, DROP_TYPE] if "max_drop" in allowed else keys, others)
    drop_type = values.pop("drop_type", DROP_TYPE.default)
    given = {limit: values[limit] for limit in table.value if limit in allowed}
    if metric == "size_reduction":
        _check_shares(table, given)
    if not given and not optional:
        raise table.error(f"holds no limit, so nothing would be judged; add one of {', '.join(allowed)}")
    if "drop_type" in table.value and "max_drop" not in given:
        raise table.error("drop_type says how max_drop is measured, and there is no max_drop", "drop_type")
    places = {limit: table.child(limit).place for limit in given}
    return ThresholdConfig(metric, given, table.place, drop_type, places)


def _check_shares(table: Cursor, given: dict[str, float]) -> None:
    for limit, value in given.items():
        if value > 1:
            raise table.child(limit).value_error(
                f"is a share, of which 0.72 is 72 %; expected at most 1, got {value:g}"
            )


def _check_bound(metric: str, table: Cursor, allowed: tuple[str, ...]) -> None:
    """Say why a bound is on the wrong side, which is no misspelling of the other."""
    sides = (("lower_bound", "more", "upper_bound", "less"), ("upper_bound", "less", "lower_bound", "more"))
    for bound, better, other, worse in sides:
        if bound in expect_table(table).value and bound not in allowed:
            reason = f"{bound} is for metrics where {better} is better; of {metric} {worse} is: use {other}"
            raise table.error(reason, bound)


def _bind_slices(metric: str, array: Cursor, allowed: tuple[str, ...]) -> tuple[ThresholdConfig, ...]:
    if not convert(array, tuple[dict[str, Any], ...]):
        raise array.value_error("is empty, so nothing would be judged; add a slice or leave the key out")
    slices: list[ThresholdConfig] = []
    for index in range(len(array.value)):
        table = array.child(index)
        bound = _bind_slice(metric, table, allowed)
        if any(bound.where == other.where for other in slices):
            raise table.error("there is a slice of this `where` already; put all its limits into one", "where")
        slices.append(bound)
    return tuple(slices)


def _bind_slice(metric: str, table: Cursor, allowed: tuple[str, ...]) -> ThresholdConfig:
    where, min_samples = bind_key(table, WHERE), bind_key(table, MIN_SAMPLES)
    if not where:
        raise table.error('where: names no slice; write for instance `where = { class = "person" }`', "where")
    bound = _bind_limits(metric, table, allowed, others=(WHERE.name, MIN_SAMPLES.name))
    return replace(bound, where=where, min_samples=min_samples)


def _limits_of(metric: str, table: Cursor, metrics: Kind[Metric]) -> tuple[str, ...]:
    if metric in CORE_METRICS:
        return limits(core=True)
    if metric not in metrics:
        raise table.error(f'unknown metric "{metric}"; {did_you_mean(metric, [*metrics, *CORE_METRICS])}')
    return limits(core=False, higher_is_better=metrics.get(metric).higher_is_better)
