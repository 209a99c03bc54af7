"""What metrics say about the two arms, as the figures of `results.json`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from qgate.errors import DataError
from qgate.losers import losers
from qgate.resampled import encode
from qgate.statistics import bootstrap_interval, resamples, rows_at_a_time

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from numpy.typing import NDArray

    from qgate.config.model import ThresholdConfig
    from qgate.protocols import Metric

__all__ = ["Comparison", "Evaluated", "Figures", "size_figures"]

_GROUPS = 100
_WORST_SLICES = 5  # of a kind; an interval of each of a thousand slices would take minutes

Figures = dict[str, Any]
Where = dict[str, str]


@dataclass(frozen=True)
class Comparison:
    """One metric of both arms, updated with the same samples in the same order."""

    baseline: Metric
    candidate: Metric
    num_samples: int
    confidence: float
    seed: int

    def figures(self, limited_slices: Iterable[Where] = ()) -> Figures:
        """Give both arms' values, the drop (positive where int8 is worse), and the same for every slice with targets.

        The whole metric, the slices that a limit names and those that lost most have intervals. Raises `DataError`
        where the metric saw no sample.
        """
        if not self.num_samples:
            raise DataError(f'metric "{self.baseline.name}" saw no sample')
        slices = {
            kind: self._with_intervals(
                kind, {value: self._slice({kind: value}) for value in values if self.baseline.support({kind: value})}
            )
            for kind, values in self.baseline.slices().items()
        }
        limited = [
            {"where": where, "support": self._support(where), **self._with_spread(where)} for where in limited_slices
        ]
        return {**self.overall(), "slices": slices, "limited_slices": limited}

    def overall(self) -> Figures:
        """Give the figures of the whole metric, with intervals."""
        return self._with_spread(None)

    def _with_intervals(self, kind: str, slices: dict[str, Figures]) -> dict[str, Figures]:
        """Give the slices of a kind, those that lost most with the interval of their drop."""
        for name, _ in losers(slices, _WORST_SLICES):
            slices[name]["drop_interval"] = self._with_spread({kind: name})["drop_interval"]
        return slices

    def _slice(self, where: Where) -> Figures:
        return {**self._point(where), "support": self._support(where)}

    def _point(self, where: Where | None) -> Figures:
        before, after = (float(values[0]) for values in self._both(np.ones((1, self.num_samples)), where))
        drop = float(self._drop(before, after))
        return {"baseline": before, "candidate": after, "drop": drop, "relative_drop": _share(drop, before)}

    def _support(self, where: Where | None) -> int:
        return int(self.baseline.support(where))

    def _with_spread(self, where: Where | None) -> Figures:
        point = self._point(where)
        before, after = np.concatenate([self._both(rows, where) for rows in self._resamples()], axis=1)
        drop = self._drop(before, after)
        with np.errstate(divide="ignore", invalid="ignore"):
            relative = drop / np.abs(before)
        samples = self._samples_with_targets(where)
        return {
            **point,
            "samples": samples,
            "drop_interval": bootstrap_interval(drop, point["drop"], samples, self.confidence),
            "relative_drop_interval": bootstrap_interval(relative, point["relative_drop"], samples, self.confidence),
            "resampled": encode(after),
            "higher_is_better": self.baseline.higher_is_better,
            "unit": self.baseline.unit,
            "compares_with": getattr(self.baseline, "compares_with", "targets"),
        }

    def _samples_with_targets(self, where: Where | None) -> int:
        """Count the samples that a figure rests on: a hundred targets in three samples are three samples.

        A metric is undefined on samples without targets. Many samples are dealt into groups, and groups are counted,
        which are fewer: how wide an interval is hardly depends on so great a number.
        """
        groups, step = min(self.num_samples, _GROUPS), rows_at_a_time(self.num_samples)
        defined = sum(
            int(np.isfinite(self.baseline.compute(self._dealt(groups, range(first, first + step)), where)).sum())
            for first in range(0, groups, step)
        )
        return self.num_samples if defined == groups else defined

    def _dealt(self, groups: int, wanted: range) -> NDArray[np.float64]:
        """Give weights that choose one group of samples a row."""
        rows = np.arange(wanted.start, min(wanted.stop, groups))
        return np.equal.outer(rows, np.arange(self.num_samples) % groups).astype(np.float64)

    def _resamples(self) -> Iterable[NDArray[np.float64]]:
        return resamples(self.num_samples, self.seed)

    def _both(self, weights: NDArray[np.float64], where: Where | None) -> NDArray[np.float64]:
        return np.stack([metric.compute(weights, where) for metric in (self.baseline, self.candidate)])

    def _drop(self, before: Any, after: Any) -> Any:
        return before - after if self.baseline.higher_is_better else after - before


@dataclass(frozen=True)
class Evaluated:
    """The metrics of all arms, updated with the same samples in the same order, and the limits that name them."""

    metrics: Mapping[str, Mapping[str, Metric]]
    thresholds: Mapping[str, ThresholdConfig]
    num_samples: int
    confidence: float
    seed: int

    def compared(self, name: str, baseline: str, candidate: str) -> Comparison:
        """Compare two arms by one metric."""
        before, after = (self.metrics[arm][name] for arm in (baseline, candidate))
        return Comparison(before, after, self.num_samples, self.confidence, self.seed)

    def figures(self, arm: str) -> dict[str, Figures]:
        """Give the figures of an arm against float32, by metric. Raises `DataError`."""
        return {
            name: self.compared(name, "float32", arm).figures(
                [item.where for item in self.thresholds[name].slices if item.where]
            )
            for name in self.metrics[arm]
        }


def size_figures(float_bytes: int, int8_bytes: int) -> Figures:
    """Give the size reduction: 1 - int8 bytes / float32 bytes, both files of the same writer."""
    return {"baseline": float_bytes, "candidate": int8_bytes, "value": 1 - int8_bytes / float_bytes}


def _share(drop: float, baseline: float) -> float | None:
    return drop / abs(baseline) if baseline else None
