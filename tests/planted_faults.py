"""Faults to plant in the tensors of an artifact, each with the layer that is then to blame."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch

Tensors = dict[str, "torch.Tensor"]


@dataclass(frozen=True)
class PlantedFault:
    """A change of an artifact's tensors, in place, and the module whose layer it spoils."""

    name: str
    layer: str
    plant: Callable[[Tensors], None]

    def __str__(self) -> str:
        return self.name


def scaled_output(layer: str, factor: float) -> PlantedFault:
    """Quantize a layer's output with a wrong scale: too great, and all is zero; too small, and all is saturated."""
    key = f"{layer.replace('.', '_')}_scale_0"
    return PlantedFault(f"output of {layer} x {factor:g}", layer, lambda tensors: tensors[key].mul_(factor))


def collapsed_range(layer: str) -> PlantedFault:
    """Do what an observer does that saw one value only: a scale of float32's smallest step."""
    key = f"{layer.replace('.', '_')}_scale_0"
    return PlantedFault(f"range of {layer}", layer, lambda tensors: tensors[key].fill_(1.1920929e-07))


def zeroed_weight(layer: str) -> PlantedFault:
    """Lose a layer's weights."""
    return PlantedFault(f"weight of {layer} is 0", layer, lambda tensors: tensors[f"{layer}.weight"].zero_())


def scaled_weight(layer: str, factor: float) -> PlantedFault:
    """Give a layer's weights a wrong scale."""
    key = f"{layer}.weight_scale"
    return PlantedFault(f"weight scale of {layer} x {factor:g}", layer, lambda tensors: tensors[key].mul_(factor))


def nan_in(layer: str, tensor: str) -> PlantedFault:
    """Put one NaN in a tensor of a layer, its `bias` or `weight_scale`."""

    def plant(tensors: Tensors) -> None:
        tensors[f"{layer}.{tensor}"].view(-1)[0] = float("nan")

    return PlantedFault(f"NaN in {tensor} of {layer}", layer, plant)


def nan_scale(layer: str) -> PlantedFault:
    """Quantize a layer's output with a scale that is not a number."""
    key = f"{layer.replace('.', '_')}_scale_0"
    return PlantedFault(f"NaN scale of {layer}", layer, lambda tensors: tensors[key].fill_(float("nan")))
