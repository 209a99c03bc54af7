"""Correcting a calibrated int8 graph on the samples that calibrated it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qgate.engine.calibrate import preprocessed
from qgate.engine.probe import spread
from qgate.quantization.corrections.correct import correct, count_layers, peak_bytes

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from qgate.engine.load import Inputs
    from qgate.engine.progress import StepClock
    from qgate.quantization.prepare import Recipe

__all__ = ["correct_graph", "corrects"]

_MEMORY = 2**31  # bytes of values that are held at a time: 64 images of 640x640 in a small detector


def corrects(recipe: Recipe) -> bool:
    """Say whether a recipe has corrections of the calibrated graph."""
    return recipe.bias_correction or recipe.weight_rounding != "nearest"


def correct_graph(
    reference: torch.fx.GraphModule, recipe: Recipe, inputs: Inputs, chosen: Sequence[int], clock: StepClock
) -> None:
    """Correct a reference graph in place, on as many of the chosen samples as memory is set aside for.

    Raises `DataError`, `ModelError`.
    """
    with clock.step("correct", count_layers(reference)) as progress:
        (first,) = preprocessed(inputs.loaded, inputs.calibration, chosen[:1])
        used = spread(chosen, max(1, _MEMORY // peak_bytes(reference, first)))
        samples = list(preprocessed(inputs.loaded, inputs.calibration, used))
        rounding = recipe.weight_rounding == "gptq"
        correct(reference, samples, rounding=rounding, bias=recipe.bias_correction, advance=progress.advance)
