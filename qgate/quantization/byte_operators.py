"""Operators on bytes for compiled graphs, `torch.ops.qgate`: on uint8 tensors and on those of torch's quantized type.

A quantized tensor's scale and zero point are left as they are: only its bytes are read and written. The operators are
native where byte_table.py has a native kernel, and then TorchScript calls them without Python; else they are the
functions below.
"""

from __future__ import annotations

import torch

from qgate.quantization.byte_table import SumQuantization, add_table, apply_table, register_native_operators

__all__ = ["IDENTITY", "as_bytes", "as_quantized"]

IDENTITY = torch.arange(256, dtype=torch.uint8)

_SCHEMAS = (
    "map_(Tensor(a!) to, Tensor source, Tensor table) -> Tensor(a!)",
    "add_(Tensor(a!) values, Tensor other, Tensor table, float table_scale, float table_zero_point, "
    "float other_scale, float other_zero_point, float scale, float zero_point) -> Tensor(a!)",
    "place_(Tensor(a!) to, Tensor source, Tensor table, int top, int left, int channel, int fill) -> Tensor(a!)",
    "squares_(Tensor(a!) to, Tensor source) -> Tensor(a!)",
    "bytes(Tensor(a) quantized) -> Tensor(a)",
)


def as_quantized(x: torch.Tensor, step: float, zero_point: int) -> torch.Tensor:
    """See bytes as a tensor of torch's quantized type, without a copy."""
    quantized = torch._empty_affine_quantized([0], scale=step, zero_point=zero_point, dtype=torch.quint8)
    return quantized.set_(x.untyped_storage(), x.storage_offset(), x.shape, x.stride())


def as_bytes(quantized: torch.Tensor) -> torch.Tensor:
    """See the bytes of a tensor of torch's quantized type, without a copy, as `int_repr` makes one."""
    place = (quantized.storage_offset(), quantized.shape, quantized.stride())
    return torch.empty(0, dtype=torch.uint8).set_(quantized.untyped_storage(), *place)


def _map(to: torch.Tensor, source: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
    """Make each byte of `to` the entry of `table` for that of `source`; both may be one tensor."""
    apply_table(as_bytes(to).copy_(as_bytes(source)), table)
    return to


def _add(values: torch.Tensor, other: torch.Tensor, table: torch.Tensor, *quantization: float) -> torch.Tensor:
    """Do what `add_table` does."""
    add_table(as_bytes(values), as_bytes(other), table, SumQuantization(*quantization))  # type: ignore[arg-type]  # whole
    return values


def _place(  # noqa: PLR0913, PLR0917  # an operator's arguments
    to: torch.Tensor, source: torch.Tensor, table: torch.Tensor, top: int, left: int, channel: int, fill: int
) -> torch.Tensor:
    """Write what `table` makes of `source`, (N, C, H, W), into a part of `to`; around it `fill`, unless that is -1."""
    target, (_, channels, height, width) = as_bytes(to), source.shape
    if fill >= 0:
        target.fill_(fill)
    part = target[:, channel : channel + channels, top : top + height, left : left + width]
    part.copy_(apply_table(as_bytes(source).clone(), table))
    return to


def _squares(to: torch.Tensor, source: torch.Tensor) -> torch.Tensor:
    """Write the places of each 2x2 square of `source`, (N, C, H, W), row by row into the channels of `to`, 4 C."""
    batch, channels, height, width = source.shape
    rows = as_bytes(source).permute(0, 2, 3, 1).reshape(batch, height // 2, 2, width // 2, 2 * channels)
    as_bytes(to).copy_(torch.cat((rows[:, :, 0], rows[:, :, 1]), -1).permute(0, 3, 1, 2))
    return to


def _register() -> torch.library.Library:
    """Define the operators and give them native or Python kernels; they live as long as what is given."""
    library = torch.library.Library("qgate", "FRAGMENT")
    for schema in _SCHEMAS:
        library.define(schema)
    if register_native_operators():
        return library
    functions = {"map_": _map, "add_": _add, "place_": _place, "squares_": _squares, "bytes": as_bytes}
    for key in ("CPU", "QuantizedCPU"):
        for name, function in functions.items():
            library.impl(name, function, key)
    return library


_library = _register()
