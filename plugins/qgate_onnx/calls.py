"""One call of the reference graph, as what writes it in ONNX sees it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from qgate.errors import ArtifactError
from qgate.quantization.weights import int8_weight
from qgate_onnx.shapes import VARYING
from qgate_onnx.writer import Tensor

if TYPE_CHECKING:
    import torch

    from qgate_onnx.writer import Writer

__all__ = ["Call", "fixed"]


@dataclass(frozen=True)
class Call:
    """The writer, the name of the call's node, and what it gives (`Shape`, or several)."""

    writer: Writer
    name: str
    result: Any

    @property
    def shape(self) -> tuple[int | None, ...]:
        """Give the shape of the result."""
        lengths: tuple[int | None, ...] = self.result.lengths
        return lengths

    def emit(self, op: str, *inputs: Any, **attributes: Any) -> str:
        """Write a node; inputs are tensors of the graph, constants, or names."""
        return self.writer.call(op, *map(self.input, inputs), name=self.name, **attributes)

    def input(self, value: Any) -> str:
        """Give the name of a value, written as a constant where it is known."""
        if isinstance(value, str):
            return value
        if isinstance(value, Tensor):
            return value.name
        if value is VARYING:
            raise ArtifactError("reads a number that depends on the size of the batch")
        return self.writer.constant(value, f"{self.name}/constant")

    def reshaped(self, value: Any) -> str:
        """Give a value the shape of the result."""
        if sum(length is None for length in self.shape) > 1:
            raise ArtifactError("gives a shape of which two lengths depend on the size of the batch")
        return self.emit("Reshape", value, [-1 if length is None else length for length in self.shape])

    def weight(self, layer: torch.nn.Module, *, transposed: bool = False) -> Tensor:
        """Write a layer's weight, as int8 where it is quantized; a matrix may be stored the other way round."""
        found, name = int8_weight(layer), f"{self.name}/weight"
        values: Any = layer.weight if found is None else found.values
        values = values.T.contiguous() if transposed else values
        written = self.writer.constant(values, name)
        if found is not None:
            axis = 1 - found.axis if transposed and found.axis is not None else found.axis
            grid = self.writer.grid(found.scale, found.zero_point, values.dtype, axis, name)
            written = self.writer.dequantize(written, grid, f"{name}_float")
        return Tensor(written, tuple(values.shape))


def fixed(value: Any) -> Any:
    """Give a number, or a tuple of numbers, that must not depend on the size of the batch."""
    if value is VARYING or (isinstance(value, tuple | list) and VARYING in value):
        raise ArtifactError("reads a number that depends on the size of the batch")
    return value
