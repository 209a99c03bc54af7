"""How far int8's raw outputs are from float32's, sample by sample."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from qgate.engine.evaluate import evaluate
from qgate.engine.progress import Silent

if TYPE_CHECKING:
    from collections.abc import Callable

    from qgate.protocols import Dataset, LoadedModel

__all__ = ["output_distances"]


def output_distances(
    loaded: LoadedModel, int8: torch.nn.Module, dataset: Dataset, loss: Callable[[Any, Any], torch.Tensor]
) -> list[float]:
    """Give the loss of int8's raw outputs for each sample, in the data set's order, float32's being the targets.

    What float32's have against themselves is taken off, for that of a cross-entropy is not zero. Raises what `evaluate`
    raises.
    """
    measured = _Distances(loss)
    raw = replace(loaded, postprocess=lambda output, _: output)
    arms = {"float32": loaded.module, "int8": int8}
    evaluate(raw, arms, dataset, {"float32": {}, "int8": {measured.name: measured}}, Silent())
    return measured.values


class _Distances:
    """Takes raw outputs in where a metric takes predictions."""

    name: ClassVar[str] = "distance"
    compares_with: ClassVar[str] = "float32"

    def __init__(self, loss: Callable[[Any, Any], torch.Tensor]) -> None:
        self._loss = loss
        self.values: list[float] = []

    def update(self, _sample_id: str, prediction: Any, target: Any) -> None:
        """Measure one sample."""
        with torch.inference_mode():
            self.values.append(float(self._loss(prediction, target)) - float(self._loss(target, target)))
