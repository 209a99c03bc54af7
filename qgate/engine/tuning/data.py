"""What recipes are compared on: calibration data that is held out, and what float32 says of it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import torch

from qgate.engine.evaluate import postprocess, run_arm
from qgate.engine.heldout import divide
from qgate.engine.overlap import fingerprints
from qgate.errors import DataError

if TYPE_CHECKING:
    from qgate.config.model import ModelConfig
    from qgate.engine.heldout import Part
    from qgate.engine.load import Inputs
    from qgate.engine.progress import Progress
    from qgate.plugins import Registry
    from qgate.protocols import Dataset, LoadedModel, Sample

__all__ = ["tuning_inputs"]


def _with_pseudo_labels(part: Part, loaded: LoadedModel, registry: Registry, progress: Progress) -> Part:
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
    judged = fingerprints(inputs.evaluation, range(len(inputs.evaluation)))
    calibration, held_out = divide(inputs.calibration, config.data.calibration.num_samples, judged, seed)
    progress.start("predict", len(held_out))
    labelled = _with_pseudo_labels(held_out, inputs.loaded, registry, progress)
    progress.finish()
    # Opened data needs no more of the protocol than `Part` has.
    return replace(inputs, calibration=cast("Dataset", calibration), evaluation=cast("Dataset", labelled))
