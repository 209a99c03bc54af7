"""GPTQ: weights rounded one input after another, each making up for the errors of those before it.

Frantar et al. 2022, "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained Transformers"; the target is
that of Li et al. 2025, "GPTAQ": float32's output for float32's input, given int8's input. As in AdaRound, a
weight is rounded down or up and never further, so that what a range leaves room for holds whatever is chosen.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import nn
from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qgate.quantization.corrections.lockstep import Both, Layer

__all__ = ["can_round", "round_weights"]

_ROUNDED = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
_POSITIONS = 1024  # of a sample; they are drawn
_DAMPING = 0.01  # as a share of an input's mean power, as in GPTQ's own code


class Moments(NamedTuple):
    """Second moments of a layer's inputs, float64, shape (groups, inputs, inputs).

    `inner` are those of int8's inputs, `cross` those of float32's inputs (rows) with int8's (columns).
    """

    inner: torch.Tensor
    cross: torch.Tensor


def can_round(layer: Layer) -> bool:
    """Say whether a layer's output is a product of its weight with windows of its input."""
    return isinstance(layer, _ROUNDED)


def round_weights(layer: Layer, inputs: Sequence[Both]) -> None:
    """Choose the integers of a reference layer's weight; the float weight becomes exactly `scale * integer`."""
    groups = getattr(layer, "groups", 1)
    quantized = layer.get_quantized_weight()
    is_per_channel = quantized.qscheme() in {torch.per_channel_affine, torch.per_channel_symmetric}
    scale = quantized.q_per_channel_scales() if is_per_channel else torch.tensor(quantized.q_scale())
    scales = scale.double().expand(len(quantized)).reshape(groups, -1, 1)
    weight = layer.weight.detach().double().reshape(groups, len(quantized) // groups, -1)
    found = _moments(layer, inputs)
    steps = _rounded(_target(weight, found) / scales, weight / scales, found.inner)
    layer.weight = nn.Parameter((steps * scales).reshape(layer.weight.shape).float(), requires_grad=False)


def _target(weight: torch.Tensor, moments: Moments) -> torch.Tensor:
    """Give the weights that make of int8's inputs what `weight` makes of float32's, in the least squares' sense."""
    damping = _damping(moments.inner)
    products = weight @ (moments.cross + damping)
    return torch.linalg.solve(moments.inner + damping, products, left=False)  # type: ignore[no-any-return]  # untyped


def _damping(inner: torch.Tensor) -> torch.Tensor:
    power = inner.diagonal(dim1=1, dim2=2).mean(1)
    power = torch.where(power > 0, power, 1.0)
    return torch.eye(inner.shape[1], dtype=inner.dtype) * (_DAMPING * power).reshape(-1, 1, 1)


def _rounded(target: torch.Tensor, weight: torch.Tensor, inner: torch.Tensor) -> torch.Tensor:
    """Round `target` to integers next to `weight`, both in steps, shape (groups, outputs, inputs)."""
    order = inner.diagonal(dim1=1, dim2=2).argsort(dim=1, descending=True)
    along = order.unsqueeze(1).expand_as(weight)
    factor = _factor(inner + _damping(inner), order)
    left = target.gather(2, along)
    limits = torch.iinfo(torch.int8)
    low, high = (value.gather(2, along).clamp(limits.min, limits.max) for value in (weight.floor(), weight.ceil()))
    steps = torch.empty_like(left)
    for index in range(left.shape[2]):
        steps[..., index] = left[..., index].round().clamp(low[..., index], high[..., index])
        error = (left[..., index] - steps[..., index]) / factor[:, index, index, None]
        left[..., index:] -= error.unsqueeze(2) * factor[:, None, index, index:]
    return torch.empty_like(steps).scatter_(2, along, steps)


def _factor(inner: torch.Tensor, order: torch.Tensor) -> torch.Tensor:
    """Give the upper Cholesky factor of the inverse of `inner`, its rows and columns in `order`."""
    size = inner.shape[1]
    rows = inner.gather(1, order.unsqueeze(2).expand(-1, -1, size))
    ordered = rows.gather(2, order.unsqueeze(1).expand(-1, size, -1))
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(ordered))
    return torch.linalg.cholesky(inverse, upper=True)  # type: ignore[no-any-return]  # torch.linalg is untyped


def _moments(layer: Layer, inputs: Sequence[Both]) -> Moments:
    inner, cross = torch.tensor(0.0), torch.tensor(0.0)
    generator = torch.Generator().manual_seed(0)
    for both in inputs:
        windows = [_windows(layer, value) for value in (both.real, both.found)]
        shape = windows[0].shape[: windows[0].ndim - _window_dimensions(layer)]
        drawn = _drawn(shape, generator)
        real, found = (_rows(layer, value, drawn) for value in windows)
        inner = inner + (found.mT @ found).double()
        cross = cross + (real.mT @ found).double()
    return Moments(inner, cross)


def _window_dimensions(layer: Layer) -> int:
    """Count the dimensions of what one output is made of: channels and the kernel's."""
    return 1 if isinstance(layer, nn.Linear) else 1 + len(layer.kernel_size)


def _windows(layer: Layer, x: torch.Tensor) -> torch.Tensor:
    """See an input as the windows that a layer multiplies with: (samples, *positions, channels, *kernel)."""
    if isinstance(layer, nn.Linear):
        return x
    padding: Any = layer.padding
    x = x if x.ndim > 1 + len(padding) else x.unsqueeze(0)  # convolutions take a single sample as well
    x = functional.pad(x, [side for size in reversed(padding) for side in (size, size)])
    of_each = zip(layer.kernel_size, layer.stride, layer.dilation, strict=True)
    for dimension, (size, stride, dilation) in enumerate(of_each, start=2):
        x = x.unfold(dimension, dilation * (size - 1) + 1, stride)[..., ::dilation]
    return x.movedim(1, 1 + len(padding))


def _drawn(shape: torch.Size, generator: torch.Generator) -> tuple[torch.Tensor, ...]:
    """Draw positions, all where there are few."""
    count = shape.numel()
    drawn = torch.arange(count) if count <= _POSITIONS else torch.randint(count, (_POSITIONS,), generator=generator)
    return torch.unravel_index(drawn, shape)


def _rows(layer: Layer, windows: torch.Tensor, drawn: tuple[torch.Tensor, ...]) -> torch.Tensor:
    """Give windows as rows: (groups, drawn, inputs of a group)."""
    groups = getattr(layer, "groups", 1)
    return windows[drawn].reshape(len(drawn[0]), groups, -1).transpose(0, 1)
