"""Kernels as a compiled graph calls them, on bytes that tensors of torch's quantized type carry.

`onednn::qconv2d_pointwise` describes itself to oneDNN at every call, which takes 20 microseconds, and more where caches
are cold; `quantized::conv2d` keeps its description, but takes quantized tensors. So bytes travel in those, of scale 1
and zero point 0 whatever they stand for: layers count in steps anyhow. Whatever else there is reads the bytes.

Shapes are constants of the trace: what is compiled is for those that it was traced with.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn import functional

from qgate.quantization.byte_operators import IDENTITY
from qgate.quantization.fused.stem import squared
from qgate.quantization.fused.tables import byte_table

if TYPE_CHECKING:
    from torch import Tensor

    from qgate.quantization.fused.kernels import ByteAdd, ByteTable, MaxPool, QuantizedLayer
    from qgate.quantization.fused.stem import Stem

__all__ = [
    "Carrier",
    "PackedLayer",
    "PackedStem",
    "PointwiseLayer",
    "add",
    "framed",
    "joined",
    "labelled",
    "looked_up",
    "pooled",
]

_qgate = torch.ops.qgate
_IMAGES = 4  # dimensions
_VECTOR = 32  # channels: torch's pooling of fewer goes byte by byte


class Carrier:
    """Bytes of a value: in a uint8 tensor, or in a quantized one of scale 1 and zero point 0.

    Where there is a `table`, they are still to be looked up in it: by who reads them, on the way to where they go, or
    else in place.
    """

    def __init__(self, tensor: Tensor, table: Tensor | None = None) -> None:
        self.tensor, self.table = tensor, table

    @property
    def shape(self) -> torch.Size:
        """Give the tensor's shape."""
        return self.tensor.shape

    @property
    def settled(self) -> Tensor:
        """Give the tensor, looked up."""
        if self.table is not None:
            _qgate.map_(self.tensor, self.tensor, self.table)
            self.table = None
        return self.tensor

    @property
    def bytes(self) -> Tensor:
        """Give them in a uint8 tensor, without a copy."""
        tensor = self.settled
        return tensor if tensor.dtype is torch.uint8 else _qgate.bytes(tensor)

    @property
    def quantized(self) -> Tensor:
        """Give them in a quantized tensor, dense."""
        source, table = self.raw
        if source.dtype is torch.uint8:
            self.tensor, self.table = _qgate.map_(_empty(source.shape), source, table), None
        return self.settled

    @property
    def raw(self) -> tuple[Tensor, Tensor]:
        """Give a dense tensor of either kind, and the table in which its bytes are to be looked up."""
        if not self.tensor.is_contiguous(memory_format=_layout(len(self.shape))):
            self.tensor = labelled(self, 1.0, 0)
        return self.tensor, IDENTITY if self.table is None else self.table


def labelled(x: Carrier, step: float, zero_point: int) -> Tensor:
    """Give a quantized tensor that says what its bytes stand for, for operators that ask: a copy."""
    quantized = _empty(x.shape, step, zero_point)
    _qgate.bytes(quantized).copy_(x.bytes)
    return quantized


def _empty(shape: Any, step: float = 1.0, zero_point: int = 0) -> Tensor:
    size = [int(length) for length in shape]
    layout = _layout(len(size))
    return torch._empty_affine_quantized(
        size, scale=step, zero_point=zero_point, dtype=torch.quint8, memory_format=layout
    )


def _layout(dimensions: int) -> torch.memory_format:
    return torch.channels_last if dimensions == _IMAGES else torch.contiguous_format


def looked_up(kernel: ByteTable, x: Carrier) -> Carrier:
    """Do what a `ByteTable` does."""
    source, before = x.raw
    target = source if kernel.reuse else _empty(source.shape)
    return Carrier(_qgate.map_(target, source, kernel.table[before.long()]))


def framed(x: Carrier, padding: list[int], value: int) -> Carrier:
    """Do what `torch.constant_pad_nd` does."""
    if len(x.shape) != _IMAGES or len(padding) != 4 or min(padding) < 0:  # noqa: PLR2004  # a number for each side
        return Carrier(torch.constant_pad_nd(x.bytes, padding, value))
    left, right, top, bottom = padding
    batch, channels, height, width = x.shape
    target = _empty((batch, channels, height + top + bottom, width + left + right))
    return Carrier(_qgate.place_(target, *x.raw, top, left, 0, value))


def joined(parts: list[Carrier], dimension: int = 0) -> Carrier:
    """Do what `torch.cat` does."""
    batch, _, *size = parts[0].shape
    if dimension not in (1, 1 - _IMAGES) or len(size) != 2:  # noqa: PLR2004  # height and width
        return Carrier(torch.cat([part.bytes for part in parts], dimension))
    counts = [int(part.shape[1]) for part in parts]
    target = _empty((batch, sum(counts), *size))
    for number, part in enumerate(parts):
        _qgate.place_(target, *part.raw, 0, 0, sum(counts[:number]), -1)
    return Carrier(target)


def pooled(kernel: MaxPool, x: Carrier) -> Carrier:
    """Do what a `MaxPool` does."""
    if x.shape[1] % _VECTOR:
        return Carrier(kernel(x.bytes))
    return Carrier(functional.max_pool2d(x.quantized, kernel.kernel, kernel.stride, kernel.padding))


def add(kernel: ByteAdd, left: Carrier, right: Carrier) -> Carrier:
    """Do what a `ByteAdd` does."""
    if left.shape != right.shape:
        return Carrier(kernel(left.bytes, right.bytes))
    values, table = left.raw
    total = Carrier(_qgate.add_(values, right.quantized, table, *map(float, kernel.quantization)))
    if kernel.least:
        total.bytes.clamp_min_(kernel.least)
    return total


_quantized = torch.ops.quantized
# By a window's dimensions, 0 of a linear layer: the operator, that with a ReLU, and what packs a weight for both.
_OPERATORS: dict[int, tuple[Any, Any, Any]] = {
    0: (_quantized.linear, _quantized.linear_relu, _quantized.linear_prepack),
    1: (_quantized.conv1d, _quantized.conv1d_relu, _quantized.conv1d_prepack),
    2: (_quantized.conv2d, _quantized.conv2d_relu, _quantized.conv2d_prepack),
    3: (_quantized.conv3d, _quantized.conv3d_relu, _quantized.conv3d_prepack),
}


class PackedLayer(nn.Module):
    """What a `QuantizedLayer` does that gives bytes and adds none. To be made while torch's engine is oneDNN."""

    def __init__(self, kernel: QuantizedLayer) -> None:
        super().__init__()
        self.around, self.border, self.table = kernel.around, kernel.source.zero_point, kernel.end.table
        steps, bias, post_op = kernel.steps, kernel.bias, kernel.end.post_op
        scale: Any = kernel.end.scale
        rectifies = post_op.name == "relu" and not scale.zero_point
        if post_op.name != "none" and not rectifies:  # a clamp of what was rounded is what was clamped, rounded
            least, greatest = post_op.arguments or (0.0, math.inf)
            self.table = byte_table(lambda x: x.clamp(least, greatest), scale, scale)
            unit = kernel.written[0]
            steps, bias = steps / unit, bias / unit + scale.zero_point
        plain, rectified, prepack = _OPERATORS[len(kernel.window and kernel.window[0])]
        self.operator = rectified if rectifies else plain
        zeros, weight = torch.zeros(len(steps), dtype=torch.long), kernel.weight
        packed = torch._make_per_channel_quantized_tensor(weight, steps.double(), zeros, 0)  # type: ignore[arg-type]  # not packed yet
        self.packed = prepack(packed, bias, *kernel.window)

    @staticmethod
    def can_do(kernel: QuantizedLayer) -> bool:
        """Say whether there are operators for what a kernel does."""
        is_clamp = kernel.end.post_op.name in {"none", "relu", "hardtanh"}
        return is_clamp and kernel.end.scale is not None and kernel.residual_step is None

    def forward(self, x: Carrier) -> Carrier:
        """Run the kernel; its table is for who reads the result."""
        if any(self.around):
            x = framed(x, self.around, self.border)
        return Carrier(self.operator(x.quantized, self.packed, 1.0, 0), self.table)


class PackedStem(nn.Module):
    """What a `Stem` does, that ran before."""

    def __init__(self, kernel: Stem) -> None:
        super().__init__()
        self.kernels = [kernel]  # in a list, so that a trace does not look into it
        self.plain, self.folded = PackedLayer(kernel), PackedLayer(kernel.folded)

    def forward(self, x: Carrier) -> Carrier:
        """Run the faster kernel."""
        if not self.kernels[0].folds:
            return self.plain(x)  # type: ignore[no-any-return]  # a module's result
        return self.folded(Carrier(_qgate.squares_(_empty(squared(x.shape)), x.quantized)))  # type: ignore[no-any-return]  # as above


class PointwiseLayer(nn.Module):
    """What any other `QuantizedLayer` does, by the operator that it calls. That layer must run before."""

    packed: Tensor | None

    def __init__(self, kernel: QuantizedLayer) -> None:
        super().__init__()
        self.kernels = [kernel]  # in a list, so that a trace does not look into it
        for name in ("packed", "steps", "zeros", "bias"):  # an opaque tensor cannot be a constant of a trace
            self.register_buffer(name, getattr(kernel, name))
        self.around, self.border = kernel.around, kernel.source.zero_point
        self.run, self.table = _scripted(kernel), kernel.end.table
        self.gives_bytes = kernel.end.scale is not None

    def forward(self, x: Carrier, residual: Carrier | None = None) -> Carrier | Tensor:
        """Run the kernel."""
        if any(self.around):
            x = framed(x, self.around, self.border)
        if self.packed is None:
            self.packed = self.kernels[0].packed
        tensors = (x.bytes, self.packed, self.steps, self.zeros)
        if residual is not None:
            total = residual.quantized
            self.run(*tensors, _qgate.bytes(total), self.bias)  # what it returns is a copy of what it wrote there
            return Carrier(total, self.table)
        result = self.run(*tensors, self.bias)
        return Carrier(result, self.table) if self.gives_bytes else result


def _scripted(kernel: QuantizedLayer) -> Any:
    """Give a kernel's operator as a function of its tensors: a trace cannot hold its lists of numbers."""
    operator = kernel.operator._schema.name.replace("::", ".")
    added = "residual, " if kernel.residual_step else ""
    *before, scalars, algorithm = kernel.written
    scalars = f"torch.jit.annotate(List[Optional[number]], {scalars})"
    constants = ", ".join([*map(repr, (*kernel.window, *before)), scalars, repr(algorithm)])
    return torch.jit.CompilationUnit(
        f"def run(x, packed, steps, zeros, {added}bias):\n"
        f"    return torch.ops.{operator}(x, 1.0, 0, packed, steps, zeros, {added}bias, {constants})\n"
    ).run
