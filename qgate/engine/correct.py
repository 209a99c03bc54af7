"""Correcting a calibrated int8 graph on the samples that calibrated it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from qgate.engine.calibrate import preprocessed
from qgate.engine.probe import spread
from qgate.errors import QuantizationError
from qgate.quantization.corrections.correct import correct, count_layers, peak_bytes

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from qgate.config.model import QuantizationConfig
    from qgate.engine.load import Inputs
    from qgate.engine.progress import Progress, StepClock
    from qgate.quantization.prepare import Recipe

__all__ = ["correct_graph", "corrects"]

_MEMORY = 2**31  # bytes of values that are held at a time: 64 images of 640x640 in a small detector


def corrects(recipe: Recipe) -> bool:
    """Say whether a recipe has corrections of the calibrated graph."""
    return recipe.bias_correction or recipe.weight_rounding != "nearest"


def correct_graph(
    reference: torch.fx.GraphModule, said: QuantizationConfig, inputs: Inputs, chosen: Sequence[int], clock: StepClock
) -> None:
    """Correct a reference graph in place, on as many of the chosen samples as memory is set aside for.

    Raises `DataError`, `ModelError`, and `QuantizationError` where rounding takes longer than it may.
    """
    rounding = said.weight_rounding == "gptq"
    with clock.step("correct", count_layers(reference)) as progress:
        (first,) = preprocessed(inputs.loaded, inputs.calibration, chosen[:1])
        used = spread(chosen, max(1, _MEMORY // peak_bytes(reference, first)))
        samples = list(preprocessed(inputs.loaded, inputs.calibration, used))
        budget = _Budget(said, count_layers(reference), progress)
        advance = budget.advance if rounding else progress.advance
        correct(reference, samples, rounding=rounding, bias=said.bias_correction, advance=advance)


class _Budget:
    """The time that rounding may take. Layers that it left out would make a model that no other machine gives."""

    def __init__(self, said: QuantizationConfig, num_layers: int, progress: Progress) -> None:
        self.said, self.num_layers, self.progress = said, num_layers, progress
        self.deadline = time.monotonic() + said.rounding_seconds
        self.done = 0

    def advance(self) -> None:
        """Count a layer. Raises `QuantizationError` where time is up before the last."""
        self.done += 1
        self.progress.advance()
        if self.done < self.num_layers and time.monotonic() > self.deadline:
            raise QuantizationError(
                f'weight_rounding = "gptq" came to {self.done} of {self.num_layers} layers in rounding_seconds = '
                f'{self.said.rounding_seconds:g}; allow more, calibrate on fewer samples, or round to "nearest"',
                path=self.said.place.path,
                line=self.said.place.line,
            )
