"""Whose layer a node belongs to: that of the user's module whose value it makes, changes or converts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import nn

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import fx

    from qgate.quantization.layers import FloatGraph

__all__ = ["float_layers", "int8_layers"]

Layers = dict[str, str]

_ELEMENTWISE_PACKAGES = ("torch.nn.modules.activation", "torch.nn.modules.dropout")
# Names of functions and methods. What reads no values of a tensor, or only moves them in its own memory, is with them.
_FOLLOWING = {
    *("add", "add_", "iadd", "sub", "sub_", "isub", "mul", "mul_", "imul", "div", "div_", "truediv", "neg", "abs"),
    *("relu", "relu_", "relu6", "silu", "sigmoid", "sigmoid_", "tanh", "tanh_", "hardswish", "hardsigmoid", "hardtanh"),
    *(
        "leaky_relu",
        "gelu",
        "mish",
        "elu",
        "clamp",
        "clamp_",
        "dropout",
        "clone",
        "contiguous",
        "detach",
        "to",
        "float",
    ),
    *("size", "dim", "getattr", "getitem"),
}


def float_layers(floats: FloatGraph) -> Layers:
    """Give the layer of each node of a float32 graph.

    A convolution, a matrix multiplication, a pooling, a concatenation opens a layer, named as the user knows it. What
    works on values one by one (activation, residual add) belongs to the layer that came last of those it reads.
    """
    modules = dict(floats.module.named_modules(remove_duplicate=False))

    def named(node: fx.Node) -> str | None:
        return floats.names.get(node.name, node.name) if _opens(node, modules) else None

    return _walk(floats.module, named)


def int8_layers(lowered: fx.GraphModule, floats: FloatGraph) -> Layers:
    """Give the layer of each node of a lowered graph, by its name; what lowering added follows what it reads."""
    known = float_layers(floats)
    calls = {str(node.target): known[node.name] for node in floats.module.graph.nodes if node.op == "call_module"}

    def named(node: fx.Node) -> str | None:
        return known.get(node.name) or (calls.get(str(node.target)) if node.op == "call_module" else None)

    return _walk(lowered, named)


def _walk(module: fx.GraphModule, named: Callable[[fx.Node], str | None]) -> Layers:
    found: Layers = {}
    order: dict[str, int] = {}
    for node in module.graph.nodes:
        sources = [found[source.name] for source in node.all_input_nodes if source.op != "get_attr"]
        layer = named(node) or (max(sources, key=order.__getitem__) if sources else node.name)
        order.setdefault(layer, len(order))
        found[node.name] = layer
    return found


def _opens(node: fx.Node, modules: dict[str, nn.Module]) -> bool:
    if node.op == "call_module":
        return not _is_elementwise(modules[str(node.target)])
    name: Any = getattr(node.target, "__name__", node.target)
    return node.op in ("placeholder", "call_function", "call_method") and name not in _FOLLOWING


def _is_elementwise(module: nn.Module) -> bool:
    if isinstance(module, nn.Identity):
        return True
    return type(module).__module__ in _ELEMENTWISE_PACKAGES and next(module.parameters(), None) is None
