"""Limits against the model: a metric may refuse its classes, and has the slices that limits name or has not."""

from __future__ import annotations

import inspect
from contextlib import suppress
from typing import TYPE_CHECKING

from qgate.config.document import did_you_mean, shown
from qgate.engine.evaluate import brief
from qgate.errors import ConfigError, PluginError, QGateError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from qgate.config.model import ModelConfig, ThresholdConfig
    from qgate.plugins import Registry
    from qgate.protocols import Metric

__all__ = ["check_slices"]


def check_slices(config: ModelConfig, registry: Registry, class_names: Sequence[str]) -> None:
    """Raise `ConfigError`, at its line, for a metric or a slice that cannot be had of a model of these classes."""
    for name, threshold in config.thresholds.items():
        if name not in registry.metrics:  # the core's own
            continue
        header = f"[models.{config.name}.thresholds.{name}"
        metric = _metric(threshold, registry, class_names, header)
        known = _slices(metric) if threshold.slices else {}
        for table in threshold.slices:
            reason = _why_unknown(table.where or {}, name, known)
            if reason:
                raise ConfigError(
                    f"{header}.slices] where: {reason}", path=shown(table.place.path), line=table.place.line
                )


def _metric(threshold: ThresholdConfig, registry: Registry, class_names: Sequence[str], header: str) -> Metric:
    place, kind = threshold.place, registry.metrics.get(threshold.metric)
    _check_complete(kind)
    try:
        return kind(class_names)
    except QGateError as error:
        raise ConfigError(f"{header}] {error}", path=shown(place.path), line=place.line) from error
    except Exception as error:
        raise PluginError(f'metric "{threshold.metric}" cannot be made: {brief(error)}') from error


def _check_complete(kind: type[Metric]) -> None:
    """Raise `PluginError`, at the plugin's class, where a method that a subclass must write is missing."""
    missing = sorted(getattr(kind, "__abstractmethods__", ()))
    if not missing:
        return
    file, line = None, None
    with suppress(OSError, TypeError):  # a class that was not written in a file
        file, line = inspect.getsourcefile(kind), inspect.getsourcelines(kind)[1]
    message = f'metric "{kind.name}": the class {kind.__qualname__} lacks the method {", ".join(missing)}'
    raise PluginError(message, path=file, line=line)


def _slices(metric: Metric) -> Mapping[str, Sequence[str]]:
    try:
        return metric.slices()
    except Exception as error:
        raise PluginError(f'metric "{metric.name}" cannot list its slices: {brief(error)}') from error


def _why_unknown(where: Mapping[str, str], metric: str, known: Mapping[str, Sequence[str]]) -> str:
    """Say what of `where` the metric does not have; "" where it has all of it."""
    if not known:
        return f'metric "{metric}" has no slices; leave the table out'
    for kind, value in where.items():
        if kind not in known:
            return f'metric "{metric}" has no slices by "{kind}"; {did_you_mean(kind, known)}'
        if value not in known[kind]:
            return f'metric "{metric}" has no {kind} "{value}"; {did_you_mean(value, known[kind])}'
    return ""
