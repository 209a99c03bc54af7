"""Layers, poolings and resizing in ONNX."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn import functional

from qgate.errors import ArtifactError
from qgate_onnx.calls import fixed
from qgate_onnx.writer import Tensor

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from qgate_onnx.calls import Call

__all__ = [
    "adaptive_pool",
    "average_pool",
    "convolution",
    "layer_norm",
    "linear",
    "max_pool",
    "pad",
    "product",
    "resize",
    "softmax",
    "transposed",
]

_PAD_MODES = {"constant": "constant", "zeros": "constant", "reflect": "reflect", "replicate": "edge"}
_STEPS = 4  # numbers beside a scale that are tried; two suffice up to 128 -> 400


def convolution(  # noqa: PLR0913, PLR0917  # torch's arguments
    call: Call,
    x: Any,
    weight: Any,
    bias: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> str:
    """Write a convolution in as many dimensions as its input has; `padding` may be "same" or "valid"."""
    return call.emit(
        "Conv",
        *(x, weight, *([] if bias is None else [bias])),
        **_strided(weight, stride, padding, dilation),
        group=groups,
    )


def transposed(  # noqa: PLR0913, PLR0917  # torch's arguments
    call: Call,
    x: Any,
    weight: Any,
    bias: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
) -> str:
    """Write a transposed convolution."""
    window = _strided(weight, stride, padding, dilation)
    return call.emit(
        "ConvTranspose",
        *(x, weight, *([] if bias is None else [bias])),
        **window,
        output_padding=_each(output_padding, len(window["kernel_shape"])),
        group=groups,
    )


def _strided(weight: Any, stride: Any, padding: Any, dilation: Any) -> dict[str, list[int]]:
    size = [int(length) for length in weight.shape[2:]]
    dilations = _each(dilation, len(size))
    return {
        "kernel_shape": size,
        "strides": _each(stride, len(size)),
        "pads": _pads(padding, size, dilations),
        "dilations": dilations,
    }


def _each(value: Any, dimensions: int) -> list[int]:
    """Give a number for each dimension."""
    values = [fixed(value)] if isinstance(value, int) else list(fixed(value))
    return values * dimensions if len(values) == 1 else values


def _pads(padding: Any, size: list[int], dilations: list[int]) -> list[int]:
    """Give what is added before each dimension, then behind each."""
    if padding == "valid":
        padding = 0
    if padding == "same":
        around = [dilation * (length - 1) for dilation, length in zip(dilations, size, strict=True)]
        return [*(total // 2 for total in around), *(total - total // 2 for total in around)]
    return _each(padding, len(size)) * 2


def linear(call: Call, x: Tensor, weight: Any, bias: Any = None) -> str:
    """Write a linear layer: Gemm for rows, MatMul for what has more dimensions; `weight` is (outputs, inputs)."""
    if len(x.shape) == 2:  # noqa: PLR2004  # samples and features
        return call.emit("Gemm", x, weight, *([] if bias is None else [bias]), transB=1)
    return product(call, x, call.emit("Transpose", weight, perm=[1, 0]), bias)


def product(call: Call, x: Tensor, weight: Any, bias: Any = None) -> str:
    """Write a linear layer as a product with a weight of (inputs, outputs), and a sum."""
    result = call.emit("MatMul", x, weight)
    return result if bias is None else call.emit("Add", result, bias)


def max_pool(  # noqa: PLR0913, PLR0917  # torch's arguments
    call: Call,
    x: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> str:
    """Write a max pooling."""
    if return_indices:
        raise ArtifactError("gives indices")
    window = _window(x, kernel_size, stride, padding, ceil_mode)
    return call.emit("MaxPool", x, dilations=_each(dilation, len(window["kernel_shape"])), **window)


def average_pool(  # noqa: PLR0913, PLR0917  # torch's arguments
    call: Call,
    x: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> str:
    """Write an average pooling."""
    if divisor_override:
        raise ArtifactError("overrides its divisor")
    window = _window(x, kernel_size, stride, padding, ceil_mode)
    return call.emit("AveragePool", x, count_include_pad=int(count_include_pad), **window)


def _window(x: Tensor, kernel_size: Any, stride: Any, padding: Any, ceil_mode: bool) -> dict[str, Any]:
    size = _each(kernel_size, len(x.shape) - 2)
    return {
        "kernel_shape": size,
        "strides": _each(stride, len(size)) if stride else size,
        "pads": _pads(padding, size, size),
        "ceil_mode": int(ceil_mode),
    }


def adaptive_pool(op: str) -> Callable[..., str]:
    """Give the form of a pooling to a size, by ONNX's `op`: all at once, or by windows of one size."""

    def written(call: Call, x: Tensor, output_size: Any, return_indices: bool = False) -> str:  # noqa: ARG001
        given, wanted = x.shape[2:], call.shape[2:]
        if all(length == 1 for length in wanted):
            return call.emit(f"Global{op}", x)
        pairs = [(length, parts) for length, parts in zip(given, wanted, strict=True) if length and parts]
        if len(pairs) < len(given) or any(length % parts for length, parts in pairs):
            raise ArtifactError(f"pools {given} to {wanted} by windows of several sizes")
        window = [length // parts for length, parts in pairs]
        return call.emit(op, x, kernel_shape=window, strides=window)

    return written


def resize(  # noqa: PLR0913, PLR0917  # torch's arguments
    call: Call,
    x: Tensor,
    size: Any = None,  # noqa: ARG001  # the result's
    scale_factor: Any = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
    recompute_scale_factor: bool | None = None,
    antialias: bool = False,
) -> str:
    """Write a resizing by nearest, linear or cubic interpolation."""
    if antialias or mode not in _RESIZES:
        raise ArtifactError(f'resizes by "{mode}"{" with antialias" if antialias else ""}')
    lengths = list(zip(x.shape[2:], call.shape[2:], strict=True))
    if any(length is None for pair in lengths for length in pair):
        raise ArtifactError("resizes to a size that depends on the size of the batch")
    factors = scale_factor if isinstance(scale_factor, tuple | list) else [scale_factor] * len(lengths)
    if recompute_scale_factor:
        factors = [None] * len(lengths)
    how, scales = dict(_RESIZES[mode]), [1.0, 1.0]
    if mode != "nearest":  # "pytorch_half_pixel" is not torch's where one value is left
        how["coordinate_transformation_mode"] = "align_corners" if align_corners else "half_pixel"
    for axis, ((given, made), factor) in enumerate(zip(lengths, factors, strict=True), 2):
        taken = _nearest(given or 1, made or 1, factor)
        scale = _scale(given or 1, factor, taken, mode == "nearest")
        x = x if scale else Tensor(call.emit("Gather", x, taken, axis=axis), call.shape)
        scales.append(scale or 1.0)
    return call.emit("Resize", x, "", torch.tensor(scales), **how)


def _nearest(given: int, made: int, factor: float | None) -> torch.Tensor:
    """Give the places of the values that torch takes."""
    places = torch.arange(given, dtype=torch.float32)[None, None]
    size = made if factor is None else None
    return functional.interpolate(places, size=size, scale_factor=factor)[0, 0].long()


def _scale(given: int, factor: float | None, taken: torch.Tensor, is_nearest: bool) -> float | None:
    """Give the float32 by which runtimes make as many values as torch; None where no such takes the nearest as torch.

    Runtimes multiply in float32, where `made / given` may fall short of `made`; a float32 beside it does not.
    """
    made = len(taken)
    for scale in _beside(np.float32(factor or made / given)):
        places = np.minimum(np.floor(np.arange(made, dtype=np.float32) / scale), given - 1)
        if np.floor(scale * np.float32(given)) == made and (not is_nearest or np.array_equal(places, taken)):
            return float(scale)
    return None


def _beside(scale: np.float32) -> Iterator[np.float32]:
    """Give a number, and those that follow it on either side."""
    above = below = scale
    yield scale
    for _ in range(_STEPS):
        above, below = np.nextafter(above, np.float32(np.inf)), np.nextafter(below, np.float32(0))
        yield from (above, below)


_RESIZES: dict[str, dict[str, Any]] = {
    "nearest": {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"},
    **{mode: {"mode": "linear"} for mode in ("linear", "bilinear", "trilinear")},
    "bicubic": {"mode": "cubic", "cubic_coeff_a": -0.75},
}


def pad(call: Call, x: Tensor, pad: Sequence[int], mode: str = "constant", value: float | None = None) -> str:
    """Write a padding; `pad` begins with the last dimension, as torch has it."""
    if mode not in _PAD_MODES:
        raise ArtifactError(f'pads by "{mode}"')
    around, rank = list(fixed(pad)), len(x.shape)
    before, behind = [0] * rank, [0] * rank
    for place in range(len(around) // 2):
        before[rank - 1 - place], behind[rank - 1 - place] = around[2 * place : 2 * place + 2]
    return call.emit("Pad", x, [*before, *behind], float(value or 0), mode=_PAD_MODES[mode])


def layer_norm(  # noqa: PLR0913, PLR0917  # torch's arguments
    call: Call, x: Any, normalized_shape: Any, weight: Any = None, bias: Any = None, eps: float = 1e-5
) -> str:
    """Write a layer norm over the last dimensions."""
    shape = tuple(fixed(normalized_shape))
    scale = torch.ones(shape) if weight is None else weight
    given = (x, scale) if bias is None else (x, scale, bias)
    return call.emit("LayerNormalization", *given, axis=-len(shape), epsilon=float(eps))


def softmax(op: str) -> Callable[..., str]:
    """Give the form of a softmax or its logarithm."""

    def written(call: Call, x: Any, dim: int | None = None, _stacklevel: int = 3, dtype: Any = None) -> str:
        if dim is None or dtype is not None:
            raise ArtifactError("does not say along which dimension, or says in which type")
        return call.emit(op, x, axis=dim)

    return written
