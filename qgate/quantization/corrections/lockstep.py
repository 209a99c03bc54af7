"""A reference graph run on many samples at once, twice over: as float32 and as int8, one node after another.

So a layer can be changed when all before it are as they will stay, and each layer runs once a sample. What the samples
need is held until its last reader has run; int8's values are held as bytes.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.ao.nn.quantized import reference
from torch.fx.node import map_arg

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    Sample = tuple[torch.Tensor, ...]
    Visit = Callable[["Node", "Layer", "list[Both]"], "list[Both]"]

__all__ = ["LAYERS", "Both", "Layer", "Lockstep", "Node", "first_of", "float_forward", "layer_of"]

Node = Any  # torch.fx types each argument of a node as a union of twenty types
Layer = Any  # a reference module: torch types its attributes as tensors or modules

# Reference layers, each with the class whose `forward` takes its weights as they are, not quantized.
LAYERS: dict[type, Any] = {
    reference.Conv1d: nn.Conv1d,
    reference.Conv2d: nn.Conv2d,
    reference.Conv3d: nn.Conv3d,
    reference.ConvTranspose1d: nn.ConvTranspose1d,
    reference.ConvTranspose2d: nn.ConvTranspose2d,
    reference.ConvTranspose3d: nn.ConvTranspose3d,
    reference.Linear: nn.Linear,
}
_QUANTIZE: set[Any] = {torch.quantize_per_tensor, torch.quantize_per_channel}
_DEQUANTIZE = "dequantize"


@dataclass(frozen=True, eq=False)
class Both:
    """One value of one sample, as float32 has it and as int8 has it: there it may be `stored` quantized."""

    real: Any
    stored: Any

    @property
    def found(self) -> Any:
        """Give int8's value, dequantized."""
        is_bytes = isinstance(self.stored, torch.Tensor) and self.stored.is_quantized
        return self.stored.dequantize() if is_bytes else self.stored


def float_forward(layer: Layer, x: torch.Tensor) -> torch.Tensor:
    """Run a layer of a reference graph with float32's weights."""
    return LAYERS[type(layer)].forward(layer, x)  # type: ignore[no-any-return]  # a module's method


def first_of(module: Any) -> Any:
    """Give a module or, where FX fused it with an activation, what it begins with."""
    return module[0] if isinstance(module, nn.Sequential) and len(module) else module


def layer_of(module: Any) -> Layer | None:
    """Give the int8 layer that a module is or begins with; None where there is none."""
    first = first_of(module)
    return first if type(first) in LAYERS else None


class Lockstep:
    """Runs a reference graph; `modules` are its modules by name."""

    def __init__(self, graph_module: torch.fx.GraphModule) -> None:
        self.graph_module = graph_module
        self.modules: dict[str, Any] = dict(graph_module.named_modules(remove_duplicate=False))
        self._nodes: list[Node] = [node for node in graph_module.graph.nodes if node.op != "output"]
        self._done = {source: node for node in graph_module.graph.nodes for source in node.all_input_nodes}

    def peak_bytes(self, sample: Sample) -> int:
        """Give the most bytes that one sample's values take at a time."""
        return max(map(_bytes, self._run([sample], _as_it_is)))

    def run(self, samples: Sequence[Sample], visit: Visit) -> None:
        """Run all samples; `visit` is given each int8 layer with its inputs, one a sample, and gives its outputs."""
        for _ in self._run(samples, visit):
            pass

    def _run(self, samples: Sequence[Sample], visit: Visit) -> Iterator[dict[Node, list[Both]]]:
        """Give what is held, after each node."""
        held: dict[Node, list[Both]] = {}
        left = [iter(sample) for sample in samples]
        for node in self._nodes:
            if node.op == "placeholder":
                held[node] = [Both(value.clone(), value.clone()) for value in map(next, left)]
            elif node.op == "get_attr":
                held[node] = [Both(*(operator.attrgetter(node.target)(self.graph_module),) * 2)] * len(samples)
            else:
                held[node] = self._results(node, held, len(samples), visit)
            yield held
            for source in node.all_input_nodes:
                if self._done[source] is node:
                    del held[source]

    def _results(self, node: Node, held: dict[Node, list[Both]], count: int, visit: Visit) -> list[Both]:
        module: Any = self.modules.get(str(node.target)) if node.op == "call_module" else None
        layer = layer_of(module)
        if layer is None:
            return [
                self._both(node, {part: held[part][index] for part in node.all_input_nodes}) for index in range(count)
            ]
        results = visit(node, layer, held[node.args[0]])
        for inner in list(module)[1:] if module is not layer else []:
            results = [Both(inner(both.real), inner(both.found)) for both in results]
        return results

    def _both(self, node: Node, values: dict[Node, Both]) -> Both:
        if node.target == _DEQUANTIZE:
            return values[node.args[0]]
        found = self._call(node, {part: value.found for part, value in values.items()})
        if node.target in _QUANTIZE:
            return Both(values[node.args[0]].real, found)
        return Both(self._call(node, {part: value.real for part, value in values.items()}), found)

    def _call(self, node: Node, values: dict[Node, Any]) -> Any:
        args, kwargs = (map_arg(given, values.__getitem__) for given in (node.args, node.kwargs))
        if node.op == "call_module":
            return self.modules[str(node.target)](*args, **kwargs)
        if node.op == "call_method":
            return getattr(args[0], str(node.target))(*args[1:], **kwargs)
        return node.target(*args, **kwargs)


def _as_it_is(_: Node, layer: Layer, inputs: list[Both]) -> list[Both]:
    return [Both(float_forward(layer, both.real), layer(both.found)) for both in inputs]


def _bytes(held: dict[Node, list[Both]]) -> int:
    """Count the bytes of all tensors, those that two nodes have once."""
    both = [value for values in held.values() for value in values]
    parts = [part for value in both for part in (value.real, value.stored)]
    return sum({tensor.data_ptr(): tensor.nbytes for tensor in _tensors(parts)}.values())


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _tensors(part)
