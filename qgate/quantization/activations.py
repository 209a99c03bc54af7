"""The values of layers' outputs in float32, counted, and the range that int8 covers of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from qgate.quantization.grouping import int8_layers
from qgate.quantization.histogram import Histogram
from qgate.quantization.sensitivity import run_kept, unconverted

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from torch import fx

    from qgate.quantization.layers import FloatGraph, Inputs

__all__ = ["OutputValues", "output_values"]

_BINS = 128


@dataclass
class OutputValues:
    """The values of a layer's output: their histogram, the range that int8 covers, and the share beyond it."""

    layer: str
    covered: tuple[float, float]
    step: float
    histogram: Histogram
    seen: int = 0
    beyond: int = 0

    @property
    def clipped(self) -> float:
        """Give the share of values that quantization moves by more than the half step of rounding."""
        return self.beyond / self.seen if self.seen else 0.0

    def add(self, values: torch.Tensor) -> None:
        """Count the values of one batch."""
        low, high = self.covered
        self.histogram.count(Histogram.sampled(values.float()))
        self.seen += values.numel()
        self.beyond += int(((values < low - self.step / 2) | (values > high + self.step / 2)).sum())


def output_values(
    floats: FloatGraph, reference: fx.GraphModule, batches: Iterable[Inputs], layers: Sequence[str], count: int
) -> list[OutputValues]:
    """Count the outputs of the first `count` of `layers` whose output is quantized by one scale, in their order."""
    of_layers = int8_layers(reference, floats)
    ends = {of_layers[node.name]: node for node in reference.graph.nodes if node.target is torch.quantize_per_tensor}
    chosen = {layer: ends[layer] for layer in [layer for layer in layers if layer in ends][:count]}
    found = {layer: _described(layer, node, reference) for layer, node in chosen.items()}
    for inputs in batches:
        real = run_kept(floats.module, inputs)
        for layer, node in chosen.items():
            values = real.get(unconverted(node).name)
            if isinstance(values, torch.Tensor) and values.numel():
                found[layer].add(values)
    return [values for values in found.values() if values.seen and values.histogram.counts.numel()]


def _described(layer: str, node: fx.Node, reference: fx.GraphModule) -> OutputValues:
    _, scale, zero_point, dtype = (_constant(value, reference) for value in node.args)
    limits = torch.iinfo(torch.uint8 if dtype is torch.quint8 else torch.int8)
    step, zero = float(scale), int(zero_point)
    return OutputValues(layer, ((limits.min - zero) * step, (limits.max - zero) * step), step, Histogram(_BINS))


def _constant(value: Any, reference: fx.GraphModule) -> Any:
    """Give an argument; of a node that only fetches one from the module, what it fetches."""
    is_fetched = getattr(value, "op", "") == "get_attr"
    return getattr(reference, value.target) if is_fetched else value
