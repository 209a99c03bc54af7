"""Changes of a reference graph that a `BackendConfig` cannot say, each for a runtime's sake."""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import fx, nn
from torch.nn import functional

from qgate.quantization.moves import moves_values

__all__ = ["leave_out_repeated", "quantize_sigmoids"]

# A sigmoid comes as near to 1 as it likes: a scale of 1 / 256, as torch has it, would make every great value smaller.
_SIGMOID_SCALE, _SIGMOID_ZERO_POINT = 1 / 255, 0


def quantize_sigmoids(reference: fx.GraphModule) -> fx.GraphModule:
    """Write each SiLU of a quantized value as a product with a quantized sigmoid, in place."""
    modules = dict(reference.named_modules(remove_duplicate=False))
    for node in list(reference.graph.nodes):
        if _is_silu(node, modules) and node.all_input_nodes[0].target == "dequantize":
            _write_out(reference, node)
    reference.delete_all_unused_submodules()
    reference.recompile()
    return reference


def _is_silu(node: fx.Node, modules: dict[str, nn.Module]) -> bool:
    if node.op == "call_module":
        return isinstance(modules[str(node.target)], nn.SiLU)
    return node.target is functional.silu


def _write_out(reference: fx.GraphModule, node: fx.Node) -> None:
    graph, x, name = reference.graph, node.all_input_nodes[0], node.name
    for suffix, value in (("scale", torch.tensor(_SIGMOID_SCALE)), ("zero_point", torch.tensor(_SIGMOID_ZERO_POINT))):
        reference.register_buffer(f"{name}_sigmoid_{suffix}", value)
    with graph.inserting_before(node):
        sigmoid = graph.call_function(torch.sigmoid, (x,))
        scale, zero_point = (graph.get_attr(f"{name}_sigmoid_{suffix}") for suffix in ("scale", "zero_point"))
        quantized = graph.call_function(torch.quantize_per_tensor, (sigmoid, scale, zero_point, torch.quint8))
        product = graph.call_function(torch.mul, (x, graph.call_method("dequantize", (quantized,))))
    node.replace_all_uses_with(product)
    graph.erase_node(node)


def leave_out_repeated(reference: fx.GraphModule) -> fx.GraphModule:
    """Leave out quantizations of values that are multiples of that very scale already, in place."""
    modules = dict(reference.named_modules(remove_duplicate=False))
    for node in list(reference.graph.nodes):
        if node.target is not torch.quantize_per_tensor or _grid(node.args[0], reference, modules) != _own(
            node, reference
        ):
            continue
        for user in list(node.users):
            if user.target == "dequantize":
                user.replace_all_uses_with(node.args[0])
                reference.graph.erase_node(user)
        if not node.users:
            reference.graph.erase_node(node)
    reference.graph.eliminate_dead_code()
    reference.recompile()
    return reference


def _own(node: Any, reference: fx.GraphModule) -> tuple[float, float]:
    scale, zero_point = (operator.attrgetter(str(part.target))(reference) for part in node.args[1:3])
    return float(scale), float(zero_point)


def _grid(value: Any, reference: fx.GraphModule, modules: dict[str, nn.Module]) -> tuple[float, float] | None:
    """Give scale and zero point of which all of a value's numbers are multiples; None where it has none."""
    if value.target == "dequantize" and value.args[0].target is torch.quantize_per_tensor:
        return _own(value.args[0], reference)
    if not (moves_values(value, modules) or _takes_greatest(value, modules)):
        return None
    grids = {_grid(part, reference, modules) for part in value.all_input_nodes}
    return grids.pop() if len(grids) == 1 else None


def _takes_greatest(value: Any, modules: dict[str, nn.Module]) -> bool:
    if value.op == "call_module":
        return isinstance(modules[str(value.target)], nn.MaxPool1d | nn.MaxPool2d | nn.MaxPool3d)
    return value.target in {functional.max_pool1d, functional.max_pool2d, functional.max_pool3d}
