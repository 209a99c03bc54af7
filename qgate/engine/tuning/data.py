"""What recipes are compared on: calibration data that they were not calibrated on, and what float32 says of it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch

from qgate.engine.evaluate import postprocess, read_sample, run_arm
from qgate.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qgate.config.model import ModelConfig
    from qgate.engine.load import Inputs
    from qgate.engine.progress import Progress
    from qgate.plugins import Registry
    from qgate.protocols import Dataset, LoadedModel, Sample

__all__ = ["divide", "tuning_inputs", "with_pseudo_labels"]

_MIN_SPARE = 16  # with fewer left over, a share of the calibration samples is held out instead
_MAX_HELD_OUT = 128
_MIN_HELD_OUT = 6  # fewer give no interval
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


def divide(dataset: Dataset, num_samples: int | None, seed: int) -> tuple[Part, Part]:
    """Divide calibration data at random into a part to calibrate on and one to compare on.

    The second is what calibration leaves over, where that is enough, else a third of all. Raises `DataError` where
    there is too little for both.
    """
    size = len(dataset)
    spare = size - (num_samples or size)
    held_out = min(spare, _MAX_HELD_OUT) if spare >= _MIN_SPARE else size // _SHARE
    if held_out < _MIN_HELD_OUT:
        raise DataError(
            f"the calibration data has {size} samples, of which tuning holds a third out to compare recipes on; it "
            f"needs at least {_SHARE * _MIN_HELD_OUT}"
        )
    order = [int(index) for index in np.random.default_rng(seed).permutation(size)]
    return Part(dataset, sorted(order[held_out:])), Part(dataset, sorted(order[:held_out]))


def with_pseudo_labels(part: Part, loaded: LoadedModel, registry: Registry, progress: Progress) -> Part:
    """Give the part with float32's predictions for targets.

    Raises `DataError` where no plugin turns predictions of this kind into targets.
    """
    targets = []
    with torch.inference_mode():
        for index in range(len(part)):
            targets.append(_pseudo_label(part.sample(index), loaded, registry))
            progress.advance()
    return replace(part, targets=targets)


def _pseudo_label(sample: Sample, loaded: LoadedModel, registry: Registry) -> Any:
    inputs, context = loaded.preprocess(sample.input)
    output = run_arm("float32", loaded.module, inputs, sample)
    prediction = postprocess(loaded, "float32", output, context, sample)
    target = registry.pseudo_label(prediction)
    if target is None:
        raise DataError(
            f"no plugin can turn a prediction of type {type(prediction).__name__} into a target, with which recipes "
            "are compared (hook qgate_pseudo_label)"
        )
    return target


def tuning_inputs(config: ModelConfig, inputs: Inputs, registry: Registry, seed: int, progress: Progress) -> Inputs:
    """Give the model with the two parts of its calibration data, in the places of calibration and evaluation data."""
    calibration, held_out = divide(inputs.calibration, config.data.calibration.num_samples, seed)
    progress.start("predict", len(held_out))
    labelled = with_pseudo_labels(held_out, inputs.loaded, registry, progress)
    progress.finish()
    # Opened data needs no more of the protocol than `Part` has.
    return replace(inputs, calibration=cast("Dataset", calibration), evaluation=cast("Dataset", labelled))
