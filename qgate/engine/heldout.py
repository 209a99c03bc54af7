"""Samples to try recipes on: of the calibration data, and none that the gate judges by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import numpy as np

from qgate.engine.evaluate import compares_with_float32, evaluate, read_sample
from qgate.engine.figures import Comparison
from qgate.engine.overlap import fingerprints
from qgate.engine.tuning.data import Part
from qgate.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    import torch

    from qgate.config.model import Settings, ThresholdConfig
    from qgate.engine.figures import Figures
    from qgate.engine.progress import Progress
    from qgate.plugins import Registry
    from qgate.protocols import Dataset, LoadedModel, Metric

__all__ = ["HeldOut", "Trials", "hold_out"]

_MAX_SAMPLES = 64
_MIN_SAMPLES = 8  # of fewer, nothing is learnt: then samples that calibrated are better than none


@dataclass(frozen=True)
class HeldOut:
    """A part of the calibration data.

    `labelled` says that its samples have targets, `seen` that some calibrated the model too, for lack of others.
    """

    samples: Part
    labelled: bool
    seen: bool

    def __str__(self) -> str:
        """Say what it is."""
        kind = "calibration samples" if self.seen else "held-out calibration samples"
        return f"{len(self.samples)} {kind}{'' if self.labelled else ' without labels'}"


def hold_out(calibration: Dataset, chosen: Collection[int], judged: Iterable[str], seed: int) -> HeldOut:
    """Draw up to 64 samples that neither calibrated the model (`chosen`) nor judge it (`judged`, their fingerprints).

    Where there are fewer than 8 such samples, those that calibrated are drawn too. Samples without a target are left
    out where others have one. Raises `DataError` where all samples are judged by.
    """
    drawn = np.random.default_rng(seed).permutation(len(calibration)).tolist()
    others = [index for index in drawn if index not in set(chosen)]
    kept = _unjudged(calibration, others, set(judged))
    seen = len(kept) < _MIN_SAMPLES
    if seen:
        kept += _unjudged(calibration, [index for index in drawn if index in set(chosen)], set(judged))
    if not kept:
        raise DataError("every calibration sample is an evaluation sample too, so none is left to try recipes on")
    kept = kept[:_MAX_SAMPLES]
    labelled = [index for index in kept if read_sample(calibration, index).target is not None]
    return HeldOut(Part(calibration, sorted(labelled or kept)), bool(labelled), seen)


def _unjudged(calibration: Dataset, indices: Sequence[int], judged: set[str]) -> list[int]:
    kept: list[int] = []
    for index in indices:
        if len(kept) == _MAX_SAMPLES:
            break
        if fingerprints(calibration, [index])[0] not in judged:
            kept.append(index)
    return kept


class Trials:
    """Measures int8 models against float32 on held-out samples, by the metrics that limits name.

    Without labels these are the metrics that compare with float32's predictions.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        held_out: HeldOut,
        thresholds: Mapping[str, ThresholdConfig],
        registry: Registry,
        settings: Settings,
    ) -> None:
        known = {name: registry.metrics.get(name) for name in thresholds if name in registry.metrics}
        usable = {name: metric for name, metric in known.items() if held_out.labelled or compares_with_float32(metric)}
        self.loaded = loaded
        self.held_out = held_out
        self.tables = {name: thresholds[name] for name in usable}
        self._metrics = usable
        self._settings = settings
        self._baseline: dict[str, Metric] = {}

    def figures(self, int8: torch.nn.Module, progress: Progress) -> dict[str, Figures]:
        """Give the figures of `results.json` for each metric; float32 is run again only where a metric needs it."""
        arms = {"float32": self.loaded.module, "int8": int8}
        if self._baseline and not any(map(compares_with_float32, self._metrics.values())):
            del arms["float32"]
        measured = {arm: self._new_metrics() for arm in arms}
        evaluate(self.loaded, arms, cast("Dataset", self.held_out.samples), measured, progress)
        self._baseline = measured.get("float32", self._baseline)
        return {name: self._compare(name, metric) for name, metric in measured["int8"].items()}

    def _new_metrics(self) -> dict[str, Metric]:
        return {name: metric(self.loaded.class_names) for name, metric in self._metrics.items()}

    def _compare(self, name: str, metric: Metric) -> Figures:
        count, settings = len(self.held_out.samples), self._settings
        comparison = Comparison(self._baseline[name], metric, count, settings.confidence, settings.seed)
        return comparison.figures([table.where for table in self.tables[name].slices if table.where])
