"""Samples to try recipes on: of the calibration data, and none that the gate judges by."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from qgate.engine.evaluate import compares_with_float32, evaluate, read_sample
from qgate.engine.figures import Comparison
from qgate.engine.overlap import fingerprints
from qgate.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    import torch

    from qgate.config.model import Settings, ThresholdConfig
    from qgate.engine.figures import Figures
    from qgate.engine.progress import Progress
    from qgate.plugins import Registry
    from qgate.protocols import Dataset, LoadedModel, Metric, Sample

__all__ = ["HeldOut", "HeldOutMetrics", "Part", "divide", "hold_out"]

_MAX_SAMPLES = 64
_MIN_SAMPLES = 8  # of fewer, nothing is learnt: then samples that calibrated are better than none
_MIN_SPARE = 16  # with fewer left over, a share of the calibration samples is held out instead
_MAX_DIVIDED = 128
_MIN_DIVIDED = 6  # fewer give no interval
_SHARE = 3


@dataclass(frozen=True)
class Part:
    """Some samples of a data set, by index; with `targets`, each has that target instead of its own."""

    dataset: Dataset
    indices: Sequence[int]
    targets: Sequence[Any] | None = None

    def __len__(self) -> int:
        return len(self.indices)

    def sample(self, index: int) -> Sample:
        """Read one sample."""
        sample = read_sample(self.dataset, self.indices[index])
        return sample if self.targets is None else replace(sample, target=self.targets[index])

    def sample_id(self, index: int) -> str:
        """Name a sample."""
        return self.dataset.sample_id(self.indices[index])

    def strata(self, index: int) -> frozenset[str]:
        """Name what a sample holds."""
        return self.dataset.strata(self.indices[index])

    def fingerprint(self, index: int) -> str:
        """Hash a sample's content."""
        return self.dataset.fingerprint(self.indices[index])


def divide(dataset: Dataset, num_samples: int | None, judged: Iterable[str], seed: int) -> tuple[Part, Part]:
    """Divide calibration data at random into a part to calibrate on and one to compare recipes on.

    The second is what calibration leaves over, where that is enough, else a third of all; it has none of the samples
    that judge (`judged`, their fingerprints). Raises `DataError` where there is too little for both.
    """
    size = len(dataset)
    spare = size - (num_samples or size)
    wanted = min(spare, _MAX_DIVIDED) if spare >= _MIN_SPARE else size // _SHARE
    drawn = np.random.default_rng(seed).permutation(size).tolist()
    held_out = _unjudged(dataset, drawn, set(judged), wanted)
    if len(held_out) < _MIN_DIVIDED:
        raise DataError(
            f"the calibration data has {size} samples, of which tuning holds a third out to compare recipes on; it "
            f"needs at least {_SHARE * _MIN_DIVIDED} that are not evaluation samples"
        )
    kept = set(range(size)).difference(held_out)
    return Part(dataset, sorted(kept)), Part(dataset, sorted(held_out))


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
    kept = _unjudged(calibration, others, set(judged), _MAX_SAMPLES)
    seen = len(kept) < _MIN_SAMPLES
    if seen:
        kept += _unjudged(calibration, [index for index in drawn if index in set(chosen)], set(judged), _MAX_SAMPLES)
    if not kept:
        raise DataError("every calibration sample is an evaluation sample too, so none is left to try recipes on")
    kept = kept[:_MAX_SAMPLES]
    labelled = [index for index in kept if read_sample(calibration, index).target is not None]
    return HeldOut(Part(calibration, sorted(labelled or kept)), bool(labelled), seen)


def _unjudged(calibration: Dataset, indices: Sequence[int], judged: set[str], wanted: int) -> list[int]:
    kept: list[int] = []
    for index in indices:
        if len(kept) == wanted:
            break
        if fingerprints(calibration, [index])[0] not in judged:
            kept.append(index)
    return kept


class HeldOutMetrics:
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
