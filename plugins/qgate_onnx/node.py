"""One operator of an ONNX model, while it is turned into torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import torch
from torch import fx, nn

from qgate.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Node"]


@dataclass
class Node:
    """One operator of the model, as what makes torch of it sees it.

    `inputs` are arrays where they are known, `fx.Node`s where they are computed, None where they are left out.
    `opset` is the version of ONNX's operators that the model is written in: the same name may mean something else.
    """

    proto: onnx.NodeProto
    inputs: list[Any]
    shapes: dict[str, tuple[int, ...]]
    root: nn.Module
    graph: fx.Graph
    name: str
    opset: int
    attributes: dict[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        self.attributes = {item.name: onnx.helper.get_attribute_value(item) for item in self.proto.attribute}

    def get(self, name: str, default: Any = None, place: int | None = None) -> Any:
        """Give an attribute, or the known input at a place, where newer operators have it; a list, number or text."""
        found = self.attributes.get(name)
        if found is None and place is not None and place < len(self.inputs):
            found = self.known(place)
        if isinstance(found, np.ndarray):
            return found.tolist()
        if isinstance(found, bytes):
            return found.decode()
        return default if found is None else found

    def known(self, place: int) -> Any:
        """Give an input that must be known, None where it is left out. Raises `ModelError`."""
        value = self.inputs[place] if place < len(self.inputs) else None
        if isinstance(value, fx.Node):
            raise ModelError(f"computes its input {place}; expected a constant")
        return value

    def shape(self, place: int = 0) -> tuple[int, ...]:
        """Give the shape of an input. Raises `ModelError` where it is not known."""
        value = self.inputs[place]
        if isinstance(value, np.ndarray):
            return tuple(value.shape)
        return self._shape(self.proto.input[place], "an input")

    def result_shape(self) -> tuple[int, ...]:
        """Give the shape of the first output. Raises `ModelError` where it is not known."""
        return self._shape(self.proto.output[0], "an output")

    def _shape(self, name: str, what: str) -> tuple[int, ...]:
        if name not in self.shapes:
            raise ModelError(f"has {what} of unknown shape")
        return self.shapes[name]

    def tensor(self, place: int) -> torch.Tensor:
        """Give a known input as a tensor."""
        return torch.from_numpy(np.array(self.known(place)))

    def value(self, place: int) -> Any:
        """Give an input as an argument of a node: a constant becomes a buffer, a single number stays one."""
        value = self.inputs[place]
        if isinstance(value, np.ndarray) and value.size == 1:
            return value.item()
        return self.tensor_value(place)

    def tensor_value(self, place: int) -> Any:
        """Give an input as an argument that must be a tensor: a constant becomes a buffer."""
        value = self.inputs[place]
        if isinstance(value, fx.Node):
            return value
        self.root.register_buffer(f"{self.name}_constant_{place}", self.tensor(place))
        return self.graph.get_attr(f"{self.name}_constant_{place}")

    def module(self, module: nn.Module, *arguments: Any) -> fx.Node:
        """Call a module, named as the operator is; by default on the first input."""
        self.root.add_module(self.name, module.eval())
        return self.graph.call_module(self.name, arguments or (self.value(0),))

    def function(self, function: Callable[..., Any], *arguments: Any, **keywords: Any) -> fx.Node:
        """Call a function."""
        return self.graph.call_function(function, arguments, keywords)
