"""Bias correction: what int8 adds to each output channel on the average is taken off the layer's bias.

After Nagel et al. 2019, "Data-Free Quantization Through Weight Equalization and Bias Correction", section 4.2, here
measured on calibration data, layer by layer behind layers that are corrected already. Unlike there, positions count by
the slope of the activation behind the layer: of an error that SiLU makes nothing of, nothing is to be corrected.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from qgate.quantization.called import called_modules
from qgate.quantization.corrections.lockstep import first_of, layer_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from qgate.quantization.corrections.lockstep import Both, Layer

    Function = Callable[[torch.Tensor], torch.Tensor]

__all__ = ["add_to_bias", "biases_of", "mean_error", "take_biases"]

_POSITIONS = 4096  # of a sample; they are drawn


def mean_error(outputs: Sequence[Both], axis: int, activation: Function | None) -> torch.Tensor:
    """Give what is to be added to each channel, along `axis`, of int8's outputs: float32, shape (channels,).

    It makes the squared error behind `activation` least, to first order; None is no activation.
    """
    weighted, weights = torch.tensor(0.0), torch.tensor(0.0)
    generator = torch.Generator().manual_seed(0)
    for both in outputs:
        real, found = (value.movedim(axis, -1).flatten(0, -2) for value in (both.real, both.found))
        if len(real) > _POSITIONS:
            drawn = torch.randint(len(real), (_POSITIONS,), generator=generator)
            real, found = real[drawn], found[drawn]
        weight = _weights(real, found, activation)
        weighted = weighted + (weight * (real - found)).double().sum(0)
        weights = weights + weight.double().sum(0)
    return torch.where(weights > 0, weighted / weights, 0.0).float()


def _weights(real: torch.Tensor, found: torch.Tensor, activation: Function | None) -> torch.Tensor:
    """Give the square of how much of an error comes through the activation: of its mean slope at both values."""
    if activation is None:
        return torch.ones_like(real)
    return ((_slope(activation, real) + _slope(activation, found)) / 2).square()


def _slope(function: Function, x: torch.Tensor) -> torch.Tensor:
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        (slope,) = torch.autograd.grad(function(x).sum(), x)
    return slope


def add_to_bias(layer: Layer, shift: torch.Tensor) -> None:
    """Add to a layer's bias, shape (channels,); a layer that has none is given one."""
    bias: Any = shift if layer.bias is None else layer.bias.detach() + shift
    layer.bias = nn.Parameter(bias, requires_grad=False)


def biases_of(reference: torch.fx.GraphModule) -> dict[str, torch.Tensor]:
    """Give the biases of a reference graph's layers, by the names of the modules that the graph calls."""
    layers = {name: layer_of(module) for name, module in called_modules(reference).items()}
    return {name: layer.bias.detach() for name, layer in layers.items() if layer is not None and layer.bias is not None}


def take_biases(observed: torch.fx.GraphModule, biases: Mapping[str, torch.Tensor]) -> None:
    """Give a calibrated graph, not yet converted, the biases of its reference graph. Those that were frozen stay so."""
    for name, bias in biases.items():
        layer: Layer = first_of(observed.get_submodule(name))
        learns = layer.bias is None or layer.bias.requires_grad
        layer.bias = nn.Parameter(bias.clone(), requires_grad=learns)
