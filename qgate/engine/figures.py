"""What metrics say about the two arms, as the figures of `results.json`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from qgate.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from qgate.protocols import Metric

__all__ = ["metric_figures", "size_figures"]

Figures = dict[str, Any]


def metric_figures(baseline: Metric, candidate: Metric, num_samples: int) -> Figures:
    """Give both arms' values, the drop (positive where int8 is worse), and the same for every slice with targets.

    Raises `DataError` where the metric saw no sample.
    """
    if not num_samples:
        raise DataError(f'metric "{baseline.name}" saw no sample')
    figures = _compare(baseline, candidate, num_samples, None)
    slices = {
        kind: {
            value: _compare(baseline, candidate, num_samples, {kind: value})
            for value in values
            if baseline.support({kind: value})
        }
        for kind, values in baseline.slices().items()
    }
    return {**figures, "higher_is_better": baseline.higher_is_better, "unit": baseline.unit, "slices": slices}


def size_figures(float_bytes: int, int8_bytes: int) -> Figures:
    """Give the size reduction: 1 - int8 bytes / float32 bytes, both files of the same writer."""
    return {"baseline": float_bytes, "candidate": int8_bytes, "value": 1 - int8_bytes / float_bytes}


def _compare(baseline: Metric, candidate: Metric, num_samples: int, where: Mapping[str, str] | None) -> Figures:
    weights = np.ones((1, num_samples))
    before, after = (float(metric.compute(weights, where)[0]) for metric in (baseline, candidate))
    drop = before - after if baseline.higher_is_better else after - before
    figures: Figures = {"baseline": before, "candidate": after, "drop": drop, "drop_interval": None}
    return figures if where is None else {**figures, "support": int(baseline.support(where))}
