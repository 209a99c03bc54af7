"""The parts of an ONNX graph, written one after another."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Grid", "Quantized", "Tensor", "Writer"]

Length = int | None  # None for one that depends on the size of the batch


@dataclass(frozen=True)
class Grid:
    """Names of the scale and the zero point of quantized values, and the dimension along which there are several."""

    scale: str
    zero_point: str
    axis: int | None


@dataclass(frozen=True)
class Tensor:
    """A value of the graph: its name, and its shape."""

    name: str
    shape: tuple[Length, ...]


@dataclass(frozen=True)
class Quantized(Tensor):
    """A value that is quantized."""

    grid: Grid


@dataclass
class Writer:
    """Nodes and constants; no name is given twice."""

    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: list[onnx.TensorProto] = field(default_factory=list)
    _names: set[str] = field(default_factory=set)
    _known: dict[tuple[Any, ...], str] = field(default_factory=dict)

    def name(self, wanted: str) -> str:
        """Take a name, with a number behind it where it is taken."""
        name, number = wanted, 1
        while name in self._names:
            name, number = f"{wanted}_{number}", number + 1
        self._names.add(name)
        return name

    def constant(self, value: Any, name: str = "constant") -> str:
        """Write a tensor, an array or a list of integers once, and give its name; a number becomes a float32."""
        array = _array(value)
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._known:
            self._known[key] = self.name(name)
            self.constants.append(onnx.numpy_helper.from_array(array, self._known[key]))
        return self._known[key]

    def call(self, op: str, *inputs: str, name: str, **attributes: Any) -> str:
        """Write a node of one output, and give that output's name."""
        (output,) = self.call_several(op, *inputs, names=[name], **attributes)
        return output

    def call_several(self, op: str, *inputs: str, names: Sequence[str], **attributes: Any) -> list[str]:
        """Write a node of several outputs, and give their names."""
        outputs = [self.name(name) for name in names]
        self.nodes.append(onnx.helper.make_node(op, inputs, outputs, name=f"{outputs[0]}/{op}", **attributes))
        return outputs

    def grid(self, scale: Any, zero_point: Any, dtype: torch.dtype, axis: int | None, name: str) -> Grid:
        """Write a scale and a zero point, numbers or tensors, for values of `dtype`."""
        shape = () if axis is None else (-1,)
        steps = torch.as_tensor(scale, dtype=torch.float32).reshape(shape)
        points = torch.as_tensor(zero_point).to(dtype).reshape(shape)
        return Grid(self.constant(steps, f"{name}_scale"), self.constant(points, f"{name}_zero_point"), axis)

    def quantize(self, value: str, grid: Grid, name: str) -> str:
        """Write a QuantizeLinear."""
        return self.call("QuantizeLinear", value, grid.scale, grid.zero_point, name=name, **_axis(grid))

    def dequantize(self, value: str, grid: Grid, name: str) -> str:
        """Write a DequantizeLinear."""
        return self.call("DequantizeLinear", value, grid.scale, grid.zero_point, name=name, **_axis(grid))


def _axis(grid: Grid) -> dict[str, int]:
    return {} if grid.axis is None else {"axis": grid.axis}


def _array(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu().numpy()
    elif isinstance(value, list | tuple):
        value = np.array(value, dtype=np.int64)
    elif isinstance(value, bool | int | float):
        value = np.array(value, dtype=np.float32)
    return np.ascontiguousarray(value).reshape(np.shape(value))  # the former makes a 0-d array 1-d
