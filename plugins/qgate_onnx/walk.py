"""From a reference graph to the nodes of an ONNX graph, one node after another."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import fx
from torch.fx.node import map_arg

from qgate.errors import ArtifactError
from qgate_onnx.calls import Call
from qgate_onnx.functions import FUNCTIONS, METHODS
from qgate_onnx.modules import MODULES
from qgate_onnx.shapes import Shape, holds_tensor, results
from qgate_onnx.writer import Quantized, Tensor, Writer

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Walked", "walk"]

_TYPES = {torch.quint8: torch.uint8, torch.qint8: torch.int8}


@dataclass(frozen=True)
class Walked:
    """A graph as it was written: its inputs, and its output, which may be a structure of tensors."""

    writer: Writer
    inputs: tuple[Tensor, ...]
    output: Any


def walk(reference: fx.GraphModule, example_inputs: tuple[torch.Tensor, ...]) -> Walked:
    """Write a reference graph as ONNX. Raises `ArtifactError`, which names the node for which there is no form."""
    return _Walk(reference, example_inputs).run()


class _Walk:
    def __init__(self, reference: fx.GraphModule, example_inputs: tuple[torch.Tensor, ...]) -> None:
        self.reference = reference
        self.writer = Writer()
        self.results = results(reference, example_inputs)
        self.values: dict[fx.Node, Any] = {}

    def run(self) -> Walked:
        inputs: list[Tensor] = []
        output: Any = None
        for node in self.reference.graph.nodes:
            if node.op == "output":
                output = map_arg(node.args[0], self.values.__getitem__)
                continue
            self.values[node] = self._value(node)
            if node.op == "placeholder":
                inputs.append(self.values[node])
        return Walked(self.writer, tuple(inputs), output)

    def _value(self, node: fx.Node) -> Any:
        """Write what gives a node's value; tensors and numbers that are known need no writing."""
        result = self.results[node]
        if node.op == "placeholder":
            return Tensor(self.writer.name(node.name), result.lengths)
        if node.op == "get_attr":
            return operator.attrgetter(str(node.target))(self.reference)
        return self._written(node, result) if holds_tensor(result) else result

    def _written(self, node: fx.Node, result: Any) -> Any:
        if node.target in {torch.quantize_per_tensor, torch.quantize_per_channel}:
            return self._quantized(node, result)
        if node.target == "dequantize":
            return self._dequantized(node, result)
        if node.target is operator.getitem and isinstance(self._arguments(node)[0], tuple):
            return operator.getitem(*self._arguments(node))
        return self._called(node, result)

    def _arguments(self, node: fx.Node) -> tuple[Any, ...]:
        found: tuple[Any, ...] = map_arg(node.args, self.values.__getitem__)
        return found

    def _quantized(self, node: fx.Node, result: Shape) -> Quantized:
        given, scale, zero_point, *rest = self._arguments(node)
        axis = int(rest[0]) if node.target is torch.quantize_per_channel else None
        dtype = _TYPES.get(rest[-1])
        if dtype is None:
            raise ArtifactError(f'node "{node.name}" quantizes to {rest[-1]}, for which ONNX has no type here')
        grid = self.writer.grid(scale, zero_point, dtype, axis, node.name)
        if isinstance(given, torch.Tensor):  # a weight: its bytes are written, not its floats
            function: Any = node.target
            steps = function(*self._arguments(node)).int_repr()
            return Quantized(self.writer.constant(steps, node.name), result.lengths, grid)
        return Quantized(self.writer.quantize(given.name, grid, node.name), result.lengths, grid)

    def _dequantized(self, node: fx.Node, result: Shape) -> Tensor:
        (given,) = self._arguments(node)
        if not isinstance(given, Quantized):  # of float values, torch gives these
            return given  # type: ignore[no-any-return]  # a tensor
        return Tensor(self.writer.dequantize(given.name, given.grid, node.name), result.lengths)

    def _called(self, node: fx.Node, result: Any) -> Any:
        form = self._form(node)
        arguments = self._arguments(node)
        keywords: dict[str, Any] = map_arg(node.kwargs, self.values.__getitem__)
        if form is None:
            raise ArtifactError(f"there is no ONNX form here of {self._place(node)}; {_WAY_OUT}")
        try:
            written = form(Call(self.writer, node.name, result), *arguments, **keywords)
        except ArtifactError as error:
            raise ArtifactError(f"{self._place(node)} {error.message}; {_WAY_OUT}") from error
        except TypeError as error:  # arguments that the form does not know
            raise ArtifactError(f"there is no ONNX form here of {self._place(node)} ({error}); {_WAY_OUT}") from error
        return _as_tensors(written, result)

    def _form(self, node: fx.Node) -> Callable[..., Any] | None:
        if node.op == "call_function":
            return FUNCTIONS.get(node.target)
        if node.op == "call_method":
            return METHODS.get(str(node.target))
        module = self.reference.get_submodule(str(node.target))
        found = next((MODULES[kind] for kind in type(module).__mro__ if kind in MODULES), None)
        return None if found is None else lambda call, *given: found(call, module, *given)

    def _place(self, node: fx.Node) -> str:
        """Name a node as the user knows it: its module, or its function and the module whose result it works on."""
        if node.op == "call_module":
            return f'module "{node.target}" ({type(self.reference.get_submodule(str(node.target))).__name__})'
        name = getattr(node.target, "__name__", node.target)
        source: fx.Node | None = node
        while source is not None and source.op != "call_module":
            source = next(iter(source.all_input_nodes), None)
        behind = f' behind module "{source.target}"' if source is not None else ""
        return f'{name}{behind} (node "{node.name}")'


_WAY_OUT = "replace it in the model, or ship the qgate artifact"


def _as_tensors(written: Any, result: Any) -> Any:
    if isinstance(written, list):
        return tuple(_as_tensors(*pair) for pair in zip(written, result, strict=True))
    return written if isinstance(written, Tensor) else Tensor(written, result.lengths)
