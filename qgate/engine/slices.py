"""Slices that limits name, against those that the metric can give of this model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qgate.config.document import did_you_mean, shown
from qgate.engine.evaluate import brief
from qgate.errors import ConfigError, PluginError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from qgate.config.model import ModelConfig
    from qgate.plugins import Registry

__all__ = ["check_slices"]


def check_slices(config: ModelConfig, registry: Registry, class_names: Sequence[str]) -> None:
    """Raise `ConfigError`, at its line, for a slice that its metric does not have for a model of these classes."""
    for metric, threshold in config.thresholds.items():
        known = _known_slices(metric, registry, class_names) if threshold.slices else {}
        for table in threshold.slices:
            reason = _why_unknown(table.where or {}, metric, known)
            if reason:
                header = f"[models.{config.name}.thresholds.{metric}.slices] where"
                raise ConfigError(f"{header}: {reason}", path=shown(table.place.path), line=table.place.line)


def _known_slices(metric: str, registry: Registry, class_names: Sequence[str]) -> Mapping[str, Sequence[str]]:
    try:
        return registry.metrics.get(metric)(class_names).slices()
    except Exception as error:
        raise PluginError(f'metric "{metric}" cannot list its slices: {brief(error)}') from error


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
