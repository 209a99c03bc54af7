"""A fused graph without Python: one TorchScript function, for inputs of one shape.

Python takes 50 microseconds to call a kernel, TorchScript 10. In networks of many small layers that is half the time.
"""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any

import torch
from torch import fx, nn
from torch.fx.node import map_aggregate, map_arg
from torch.nn import functional
from torch.utils._pytree import tree_flatten, tree_unflatten

from qgate.quantization.backends import engine
from qgate.quantization.byte_operators import as_bytes, as_quantized
from qgate.quantization.freeze import agree, frozen
from qgate.quantization.fused.kernels import ByteAdd, ByteTable, FloatInput, MaxPool, QuantizedLayer, QuantizeInput
from qgate.quantization.fused.lower import call_directly
from qgate.quantization.fused.packed import (
    Carrier,
    PackedLayer,
    PackedStem,
    PointwiseLayer,
    add,
    framed,
    joined,
    labelled,
    looked_up,
    pooled,
)
from qgate.quantization.fused.stem import Stem
from qgate.quantization.moves import JOINS, moves_values
from qgate.quantization.prepare import quiet_torch_ao

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Compiled", "compiled"]

Node = Any  # as in lower.py
Inputs = tuple["Tensor", ...]
Entries = list[tuple[nn.Module | None, int]]  # kernels that make a compiled graph's inputs, and of which input


def compiled(lowered: fx.GraphModule, example_inputs: Inputs) -> nn.Module:
    """Give a module that runs a fused graph compiled on inputs of the example's shapes, and node by node on others.

    It is node by node on all where the graph cannot be traced, or its trace does not give the same.
    """
    eager = call_directly(lowered)
    with torch.no_grad(), quiet_torch_ao():
        if not all(map(_has_one_way, lowered.modules())):
            eager(*example_inputs)
            return eager
        body = _Body(lowered)  # takes the weights before they are packed
        python = Compiled(body.entries, body, eager, example_inputs)
        try:
            given = _entered(body.entries, example_inputs)
            body(*given)  # takes packed weights from the kernels, which ran
            traced = frozen(body, given, bit_for_bit=True)
            module = Compiled(body.entries, traced, eager, example_inputs)
            return module if agree(python, module, example_inputs) else eager
        except Exception:  # noqa: BLE001  # whatever cannot be traced runs as it is: slower, never wrong
            return eager


class Compiled(nn.Module):
    """A compiled graph, the kernels that make its inputs, and what runs inputs of other shapes.

    `eager` gives the outputs in their structure; `run` gives them one after another.
    """

    def __init__(self, entries: Entries, run: nn.Module, eager: nn.Module, example_inputs: Inputs) -> None:
        super().__init__()
        self.run, self.eager, self.entries = run, eager, entries
        self.structure = tree_flatten(eager(*example_inputs))[1]
        self.shapes = [value.shape for value in example_inputs]

    def forward(self, *inputs: Tensor) -> Any:
        """Run the graph."""
        if [value.shape for value in inputs] != self.shapes:
            return self.eager(*inputs)
        return tree_unflatten(self.run(*_entered(self.entries, inputs)), self.structure)


def _has_one_way(module: nn.Module) -> bool:
    """Say whether a trace of a module is true of all data: code of others' may branch, unless TorchScript keeps it."""
    owner = type(module).__module__.partition(".")[0]
    return owner in {"torch", "qgate"} or isinstance(module, torch.jit.ScriptModule)


def _entered(entries: Entries, inputs: Inputs) -> Inputs:
    """Give what the compiled graph gets of its inputs: what kernels make of them, or what they are."""
    return tuple(_made(kernel, inputs[place]) for kernel, place in entries)


def _made(kernel: nn.Module | None, value: Tensor) -> Tensor:
    made: Tensor = value if kernel is None else kernel.forward(value)
    return as_quantized(made, 1.0, 0) if isinstance(kernel, QuantizeInput) else made


class _Body(nn.Module):
    """Runs a fused graph, but for the kernels that make its inputs, so that it can be traced."""

    def __init__(self, lowered: fx.GraphModule) -> None:
        super().__init__()
        self.lowered = [lowered]  # in a list, so that a trace does not look into it
        modules = {node: lowered.get_submodule(str(node.target)) for node in _calls(lowered)}
        self.given, self.entries = _entries(lowered, modules)
        with engine("onednn"):
            self.modules_of = {node: _part(module) for node, module in modules.items() if node not in self.given}
        self.parts = nn.ModuleList(self.modules_of.values())
        self.constants = {node: f"constant_{number}" for number, node in enumerate(_constants(lowered))}
        for node, name in self.constants.items():
            setattr(self, name, operator.attrgetter(str(node.target))(lowered))

    def forward(self, *given: Tensor) -> tuple[Any, ...]:
        """Run it, and give its outputs one after another."""
        values: dict[Node, Any] = dict(zip(self.given, map(_entry, given), strict=True))
        *nodes, output = self.lowered[0].graph.nodes
        for node in nodes:
            if node not in values and node.op != "placeholder":
                values[node] = self._run(node, values)
        outputs, _ = tree_flatten(map_arg(output.args[0], values.__getitem__))
        return tuple(value.bytes if isinstance(value, Carrier) else value for value in outputs)

    def _run(self, node: Node, values: dict[Node, Any]) -> Any:
        args, kwargs = map_arg((node.args, node.kwargs), values.__getitem__)
        part = self.modules_of.get(node)
        if isinstance(part, _LAYERS):
            return part(*args)
        if type(part) in _KERNELS:
            return _KERNELS[type(part)](part, *args)
        if node.target is as_bytes:
            return Carrier(torch.ops.qgate.bytes(*args))
        carried = [part for part in tree_flatten((args, kwargs))[0] if isinstance(part, Carrier)]
        if carried and node.target in _FUNCTIONS:
            return _FUNCTIONS[node.target](*args, **kwargs)
        if not carried:
            return self._call(node, part, args, kwargs)
        moves = node.target not in JOINS and moves_values(node, {str(node.target): part} if part else {})
        args, kwargs = map_aggregate((args, kwargs), _settled if moves else _bytes)
        return map_aggregate(self._call(node, part, args, kwargs), _wrapped)

    def _call(self, node: Node, part: nn.Module | None, args: Any, kwargs: Any) -> Any:
        if part is not None:
            return part(*args, **kwargs)
        if node.op == "get_attr":
            return getattr(self, self.constants[node])
        if node.op == "call_method":
            return getattr(args[0], str(node.target))(*args[1:], **kwargs)
        return node.target(*args, **kwargs)


def _calls(lowered: fx.GraphModule) -> list[Node]:
    return [node for node in lowered.graph.nodes if node.op == "call_module"]


def _constants(lowered: fx.GraphModule) -> list[Node]:
    return [node for node in lowered.graph.nodes if node.op == "get_attr"]


def _entries(lowered: fx.GraphModule, modules: dict[Node, nn.Module]) -> tuple[list[Node], Entries]:
    """Give the nodes whose values a body is given; of each the kernel that makes it, and of which input."""
    inputs = [node for node in lowered.graph.nodes if node.op == "placeholder"]
    made = [node for node, module in modules.items() if isinstance(module, (QuantizeInput, FloatInput))]
    plain = [node for node in inputs if not set(node.users) <= set(made)]
    entries = [(modules[node], inputs.index(node.args[0])) for node in made]
    return [*made, *plain], [*entries, *((None, inputs.index(node)) for node in plain)]


def _part(module: nn.Module) -> nn.Module:
    """Give what a body calls in place of a module of the fused graph."""
    if not isinstance(module, QuantizedLayer):
        return module
    if not PackedLayer.can_do(module):
        return PointwiseLayer(module)
    return PackedStem(module) if isinstance(module, Stem) else PackedLayer(module)


def _wrapped(value: Any) -> Any:
    is_bytes = isinstance(value, torch.Tensor) and value.dtype in {torch.uint8, torch.quint8}
    return Carrier(value) if is_bytes else value


def _entry(value: Tensor) -> Tensor | Carrier:
    return Carrier(value) if value.dtype is torch.quint8 else value


def _bytes(value: Any) -> Any:
    return value.bytes if isinstance(value, Carrier) else value


def _settled(value: Any) -> Any:
    return value.settled if isinstance(value, Carrier) else value


def _copied(x: Carrier) -> Carrier:
    return Carrier(labelled(x, 1.0, 0))


def _padded(x: Carrier, padding: list[int], _: str, value: int) -> Carrier:
    return framed(x, list(padding), value)


_LAYERS = (PackedLayer, PackedStem, PointwiseLayer)
_KERNELS: dict[type, Any] = {ByteTable: looked_up, MaxPool: pooled, ByteAdd: add}
_FUNCTIONS: dict[Any, Any] = {
    torch.cat: joined,
    functional.pad: _padded,
    as_quantized: labelled,
    "clone": _copied,
}
