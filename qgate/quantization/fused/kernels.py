"""What a fused graph is made of: modules on plain uint8 tensors, each of them a kernel or a few.

Scales are fixed when a module is made. Tensors of four dimensions have their channels last in memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import nn
from torch.ao.nn.quantized import reference
from torch.nn import functional

from qgate.quantization.byte_operators import IDENTITY, as_bytes
from qgate.quantization.byte_table import (
    MAX_PLANES,
    SumQuantization,
    add_table,
    apply_table,
    interleaved,
    quantize_planes,
)
from qgate.quantization.float_forms import channels_last
from qgate.quantization.fused.tables import Scale, activation_table, byte_table, squashed_table

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from qgate.quantization.fused.tables import Function, Squash

__all__ = [
    "LAYERS",
    "ByteAdd",
    "ByteTable",
    "Epilogue",
    "FloatInput",
    "MaxPool",
    "PostOp",
    "QuantizeInput",
    "QuantizedLayer",
    "epilogue",
    "has_post_op",
    "multiply",
]


class PostOp(NamedTuple):
    """What oneDNN does with a layer's result: its name, and what else torch hands on."""

    name: str = "none"
    arguments: tuple[float, ...] = ()
    algorithm: str = ""


_onednn = torch.ops.onednn
# Layers that have a kernel, each with its operator.
LAYERS: dict[type, Any] = {
    reference.Conv1d: _onednn.qconv1d_pointwise.default,
    reference.Conv2d: _onednn.qconv2d_pointwise.default,
    reference.Conv3d: _onednn.qconv3d_pointwise.default,
    reference.Linear: _onednn.qlinear_pointwise.default,
}
_POST_OPS: dict[type, set[str]] = {
    reference.Conv1d: {"none", "relu"},
    reference.Conv2d: {"none", "relu", "hardtanh", "hardswish", "swish"},
    reference.Conv3d: {"none"},
    reference.Linear: {"none", "relu", "hardtanh", "hardswish", "swish", "leaky_relu", "gelu", "tanh"},
}
_PLAIN, _SQUASHED = PostOp(), PostOp("hardswish")
_CLAMPS = {"relu", "hardtanh"}
_HOMOGENEOUS = {"none", "relu"}  # of a multiple of a value they give that multiple
_FREE = {*_CLAMPS, "leaky_relu"}  # post-ops that cost no time


@dataclass(frozen=True)
class Epilogue:
    """What a kernel does with a layer's result before it is written.

    oneDNN applies `post_op` and quantizes with `scale` (None: the result stays float32); what comes out is looked up
    in `table`, uint8 (256,), where there is one. Where there is a `squash`, that is the post-op, with its factors.
    """

    scale: Scale | None
    post_op: PostOp = _PLAIN
    table: Tensor | None = None
    squash: Squash | None = None


def has_post_op(layer: Any, post_op: PostOp | None, *, has_residual: bool = False) -> bool:
    """Say whether torch hands a post-op of this layer on to oneDNN."""
    known = {"none", "relu"} if has_residual else _POST_OPS[type(layer)]
    return post_op is not None and post_op.name in known


def epilogue(
    activation: Function | None, post_op: PostOp | None, target: Scale, has: Callable[[PostOp], bool]
) -> Epilogue | None:
    """Choose how a kernel makes `target`'s bytes of an activation of its result: by a post-op, or by a table.

    `post_op` is oneDNN's, where it knows that activation, and `has` says which the layer's kernel has. A table is
    faster than a post-op with an exponential in it. None where neither gives the activation to within a step.
    """
    if activation is None:
        return Epilogue(target)
    if post_op and post_op.name in _FREE and has(post_op):
        return Epilogue(target, post_op)
    if post_op and post_op.name in _CLAMPS:  # a clamp of what was rounded is what was clamped, rounded
        return Epilogue(target, table=byte_table(activation, target, target))
    found = activation_table(activation, target)
    if found:
        return Epilogue(found[0], table=found[1])
    squashed = squashed_table(activation, target) if has(_SQUASHED) and post_op != _SQUASHED else None
    if squashed:
        return Epilogue(squashed[1], _SQUASHED, squashed[2], squashed[0])
    return Epilogue(target, post_op) if post_op and has(post_op) else None


class QuantizedLayer(nn.Module):
    """A convolution or linear layer with all that follows it up to the next quantization.

    Maps uint8 (N, C, ...) to uint8, or to float32 where the epilogue has no scale. `residual`, uint8 of the result's
    shape, is added before the post-op, and overwritten. Weights are packed once, for the shape that comes first.

    Kernels without zero points are up to a seventh faster (`benchmarks/zero_points.py`), so the zero points go into the
    bias, and a padding, which must be real zeros, is made beforehand. A kernel that only rounds its result counts in
    steps of it: the scales of source and result go into the weight's.
    """

    def __init__(self, layer: Any, source: Scale, end: Epilogue, residual: Scale | None = None) -> None:
        super().__init__()
        self.source, self.end = source, end
        weight, steps = _quantized_weight(layer)
        self.weight: Tensor | None = weight
        unit = end.scale.step if end.scale and end.post_op.name in _HOMOGENEOUS else 1.0
        slope, offset = (end.squash.slope, end.squash.offset) if end.squash else (1 / unit, 0.0)
        self.steps = (steps * source.step * slope).float()
        self.zeros = torch.zeros(len(steps), dtype=torch.int32)
        padding = [] if isinstance(layer, reference.Linear) else list(layer.padding)
        self.around = [side for size in reversed(padding) for side in (size, size)] if source.zero_point else []
        inside = [0] * len(padding) if self.around else padding
        self.window = (list(layer.stride), inside, list(layer.dilation), layer.groups) if padding else ()
        self.operator = _onednn.qconv2d_pointwise.binary if residual else LAYERS[type(layer)]
        shifted = _shifted_bias(layer.bias, weight, steps * source.step * source.zero_point, end, residual)
        self.bias = (shifted * slope + offset).float()
        self.residual_step = residual.step / unit if residual else None
        self.written = _written(end, unit, self.residual_step)
        self.packed: Tensor | None = None

    def forward(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        """Run the kernel, then look up what it gives."""
        if any(self.around):
            x = torch.constant_pad_nd(x, self.around, self.source.zero_point)
        packed = self._pack(x) if self.packed is None else self.packed
        added = () if residual is None else (residual,)
        layer = (1.0, 0, packed, self.steps, self.zeros, *added, self.bias, *self.window)
        result: Tensor = self.operator(x, *layer, *self.written)
        return result if self.end.table is None else apply_table(result, self.end.table)

    def _pack(self, x: Tensor) -> Tensor:
        """Lay the weights out as the kernel for inputs of this shape wants them."""
        shape = list(x.shape)
        if self.window:
            packed = _onednn.qconv_prepack(self.weight, self.steps, 1.0, 0, *self.window, shape)
        else:
            packed = _onednn.qlinear_prepack(self.weight, [x.numel() // shape[-1], shape[-1]])
        self.packed, self.weight = packed, None
        return packed  # type: ignore[no-any-return]  # an operator's result


def multiply(x: Tensor, weight: Tensor, groups: int, scale: float) -> Tensor:
    """Multiply uint8 inputs by an int8 weight, both of scale 1, by these kernels; `scale` is the uint8 result's."""
    steps, zeros = torch.ones(len(weight)), torch.zeros(len(weight), dtype=torch.int32)
    behind: tuple[Any, ...] = (scale, 0, torch.uint8, "none", [], "")
    if x.ndim == 2:  # noqa: PLR2004  # samples and channels
        packed = _onednn.qlinear_prepack(weight, list(x.shape))
        return _onednn.qlinear_pointwise(x, 1.0, 0, packed, steps, zeros, None, *behind)  # type: ignore[no-any-return]
    window = ([1, 1], [0, 0], [1, 1], groups)
    packed = _onednn.qconv_prepack(weight, steps, 1.0, 0, *window, list(x.shape))
    return _onednn.qconv2d_pointwise(x, 1.0, 0, packed, steps, zeros, None, *window, *behind)  # type: ignore[no-any-return]


def _quantized_weight(layer: Any) -> tuple[Tensor, Tensor]:
    """Give a reference layer's int8 weight and its scales, one an output channel, float64."""
    weight = layer.get_quantized_weight()
    per_channel = weight.qscheme() in {torch.per_channel_affine, torch.per_channel_symmetric}
    steps = weight.q_per_channel_scales() if per_channel else torch.tensor(weight.q_scale())
    return weight.int_repr(), steps.double().expand(weight.shape[0]).contiguous()


def _shifted_bias(bias: Tensor | None, weight: Tensor, shifts: Tensor, end: Epilogue, residual: Scale | None) -> Tensor:
    """Give the bias, float64, that makes up for zero points of the source, of the residual and of the result.

    `shifts` are what a source's zero point, times a weight of 1, adds to each output channel.
    """
    shifted = -shifts * weight.flatten(1).double().sum(1)
    if bias is not None:
        shifted += bias.detach()
    if residual:
        shifted -= residual.step * residual.zero_point
    if end.scale and end.post_op.name == "none":
        shifted += end.scale.step * end.scale.zero_point
    return shifted


def _written(end: Epilogue, unit: float, residual_step: float | None) -> tuple[Any, ...]:
    """Give an operator's last arguments: how its result is written. Behind a post-op, its zero point is said here."""
    name, arguments, algorithm = end.post_op
    zero_point = end.scale.zero_point if end.scale and name != "none" else 0
    scale = (end.scale.step / unit, zero_point, torch.uint8) if end.scale else (1.0, 0, torch.float32)
    added = (residual_step, 0, "sum", 1.0) if residual_step else ()
    return (*scale, *added, name, list(arguments), algorithm)


class ByteTable(nn.Module):
    """Any function of single values, from bytes to bytes. Overwrites its input where `reuse` is set."""

    def __init__(self, table: Tensor) -> None:
        super().__init__()
        self.table = table
        self.reuse = False

    def forward(self, x: Tensor) -> Tensor:
        """Look up every byte."""
        return apply_table(x if self.reuse else x.clone(), self.table)


class ByteAdd(nn.Module):
    """The sum of two byte tensors, quantized once; no byte is below `least`, which a ReLU sets to zero's.

    The left one is overwritten.
    """

    def __init__(self, left: Scale, right: Scale, target: Scale, least: int = 0) -> None:
        super().__init__()
        self.left, self.right, self.target, self.least = left, right, target, least
        scales = (part for scale in (left, right, target) for part in (scale.step, scale.zero_point))
        self.quantization = SumQuantization(*scales)  # type: ignore[arg-type]  # steps and zero points alternate

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        """Add the values."""
        if left.shape == right.shape:
            total = add_table(left, right, IDENTITY, self.quantization)
        else:
            total = self.target.bytes(self.left.values(left) + self.right.values(right)).to(torch.uint8)
        return total.clamp_min_(self.least) if self.least else total


class MaxPool(nn.Module):
    """Max pooling over (N, C, H, W), exact on bytes: torch has no kernel for plain uint8."""

    def __init__(self, kernel: tuple[int, int], stride: tuple[int, int], padding: tuple[int, int]) -> None:
        super().__init__()
        self.kernel, self.stride, self.padding = kernel, stride, padding

    def forward(self, x: Tensor) -> Tensor:
        """Take the greatest of each window, first of columns, then of rows."""
        rows, columns = self.padding
        x = functional.pad(x, (columns, columns, rows, rows))  # a zero is the least byte
        for dimension in (3, 2):
            x = _greatest(x, dimension, self.kernel[dimension - 2], self.stride[dimension - 2])
        return x


def _greatest(x: Tensor, dimension: int, kernel: int, stride: int) -> Tensor:
    """Give the maxima of windows along one dimension; windows double, so that few passes are needed."""
    count = (x.shape[dimension] - kernel) // stride + 1
    width = 1
    while 2 * width < kernel:
        length = x.shape[dimension] - width
        x = torch.maximum(x.narrow(dimension, 0, length), x.narrow(dimension, width, length))
        width *= 2
    first, last = (_every(x, dimension, begin, count, stride) for begin in (0, kernel - width))
    return torch.maximum(first, last)


def _every(x: Tensor, dimension: int, begin: int, count: int, stride: int) -> Tensor:
    return x.narrow(dimension, begin, (count - 1) * stride + 1)[
        (slice(None),) * dimension + (slice(None, None, stride),)
    ]


class QuantizeInput(nn.Module):
    """The way in: float values are quantized; bytes, which stand for `byte * byte_scale`, are looked up at most."""

    def __init__(self, scale: Scale, byte_scale: float | None) -> None:
        super().__init__()
        self.scale, self.byte_scale = scale, byte_scale
        given = Scale(byte_scale, 0) if byte_scale else scale
        self.table = None if given.is_close(scale) else byte_table(torch.Tensor.clone, given, scale)

    def forward(self, x: Tensor) -> Tensor:
        """Give bytes. Raises `TypeError` for bytes of which nobody said what they stand for."""
        if x.dtype == torch.uint8:
            return self._bytes(x)
        is_plain = x.is_cpu and x.dtype == torch.float32
        if is_plain and x.ndim == 4 and x.shape[1] <= MAX_PLANES and x.numel():  # noqa: PLR2004  # (N, C, H, W)
            return quantize_planes(x, self.scale.step, self.scale.zero_point)
        quantized = torch.quantize_per_tensor(x.float(), self.scale.step, self.scale.zero_point, torch.quint8)
        return channels_last(as_bytes(quantized))

    def _bytes(self, x: Tensor) -> Tensor:
        if self.byte_scale is None:
            raise TypeError("uint8 input, but the model was made without `byte_scale`; expected float32")
        last = x.is_contiguous(memory_format=torch.channels_last) if x.ndim == 4 else True  # noqa: PLR2004  # as above
        x = x if last or x.shape[1] > MAX_PLANES or not x.numel() else interleaved(x.numpy())
        x = channels_last(x)
        return x if self.table is None else apply_table(x.clone(), self.table)


class FloatInput(nn.Module):
    """The way in to what is not quantized: of bytes it gives the values that they stand for."""

    def __init__(self, byte_scale: float) -> None:
        super().__init__()
        self.byte_scale = byte_scale

    def forward(self, x: Tensor) -> Tensor:
        """Give float32 for uint8, and anything else as it is."""
        return x * self.byte_scale if x.dtype == torch.uint8 else x
