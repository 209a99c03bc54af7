"""A reference graph with some of its layers put back to float32, without calibrating again."""

from __future__ import annotations

import copy
from collections import Counter
from typing import TYPE_CHECKING, Any

import torch

from qgate.quantization.called import called_modules

if TYPE_CHECKING:
    from collections.abc import Collection

    from torch.ao.quantization.backend_config import BackendConfig

    from qgate.quantization.layers import FloatGraph

__all__ = ["added_bytes", "fused_names", "quantized_layers", "with_float"]

_DEQUANTIZE = "dequantize"
_FLOAT_BYTES, _INT8_BYTES = 4, 1


def quantized_layers(reference: torch.fx.GraphModule) -> tuple[str, ...]:
    """Name the modules of a reference graph that have int8 weights, in the order in which they run."""
    return tuple(name for name, module in called_modules(reference).items() if _weights(module))


def fused_names(reference: torch.fx.GraphModule, layer: str) -> tuple[str, ...]:
    """Name a layer and the modules that its kernel takes in: what `ignored_scope` must name to keep all of it float.

    A module that is called elsewhere too, one activation for the whole network, say, is left out.
    """
    calls = Counter(str(node.target) for node in reference.graph.nodes if node.op == "call_module")
    names = [layer]
    (node, *_) = (node for node in reference.graph.nodes if node.op == "call_module" and node.target == layer)
    while len(node.users) == 1:
        (node,) = node.users
        if node.op != "call_module" or len(node.all_input_nodes) > 1 or calls[str(node.target)] > 1:
            break
        names.append(str(node.target))
    return tuple(names)


def added_bytes(reference: torch.fx.GraphModule, layer: str) -> int:
    """Count the bytes that an artifact grows by where a layer's weights are float32."""
    numbers = sum(int(part.weight.numel()) for part in _weights(reference.get_submodule(layer)))
    return numbers * (_FLOAT_BYTES - _INT8_BYTES)


def with_float(
    reference: torch.fx.GraphModule, floats: FloatGraph, config: BackendConfig, layers: Collection[str]
) -> torch.fx.GraphModule:
    """Give a copy in which the named layers are float32's, as if `ignored_scope` had what `fused_names` gives for them.

    A value stays quantized where another int8 layer makes it or reads it. What only this would quantize, having been a
    part of a kernel before, stays float: there is no range for it. So a graph quantized anew may differ in that.
    """
    mixed = copy.deepcopy(reference)
    before, after = (_Kernels(mixed, floats, config, frozenset(kept)) for kept in ((), layers))
    quantizing = [node for node in mixed.graph.nodes if _quantizes(node)]
    needless = [node for node in quantizing if before.need(node) and not after.need(node)]
    for name in layers:
        mixed.set_submodule(name, copy.deepcopy(floats.module.get_submodule(name)))
    for node in needless:
        for user in list(node.users):
            user.replace_all_uses_with(node.all_input_nodes[0])
            mixed.graph.erase_node(user)
        mixed.graph.erase_node(node)
    mixed.graph.eliminate_dead_code()
    mixed.recompile()
    return mixed


class _Kernels:
    """Says which nodes of a reference graph compute in int8 once some layers are float."""

    def __init__(
        self, reference: torch.fx.GraphModule, floats: FloatGraph, config: BackendConfig, layers: frozenset[str]
    ) -> None:
        self.layers = layers
        self.weighted = set(quantized_layers(reference))
        self.modules = dict(floats.module.named_modules(remove_duplicate=False))
        self.patterns = {entry.pattern for entry in config.configs if not isinstance(entry.pattern, tuple)}

    def need(self, quantize: torch.fx.Node) -> bool:
        """Say whether something that computes in int8 makes the value that a node quantizes, or reads it."""
        readers = [reader for dequantize in quantize.users for reader in dequantize.users]
        return self._is_int8(_maker(quantize.all_input_nodes[0])) or any(map(self._is_int8, readers))

    def _is_int8(self, node: torch.fx.Node) -> bool:
        if node.op != "call_module":
            return node.target in self.patterns
        name = str(node.target)
        if name in self.weighted:
            return name not in self.layers
        return type(self.modules.get(name)) in self.patterns


def _maker(node: torch.fx.Node) -> torch.fx.Node:
    """Follow a value back through what its kernel does to it: to the layer behind which an activation is, say."""
    sources = [source for source in node.all_input_nodes if source.op != "get_attr"]
    if len(sources) != 1 or sources[0].target == _DEQUANTIZE or sources[0].op == "placeholder":
        return node
    return _maker(sources[0])


def _quantizes(node: torch.fx.Node) -> bool:
    is_quantize = node.target in (torch.quantize_per_tensor, torch.quantize_per_channel)
    return is_quantize and all(user.target == _DEQUANTIZE for user in node.users)


def _weights(module: torch.nn.Module) -> list[Any]:
    """List the parts of a layer that have int8 weights: an activation may be behind them."""
    return [part for part in module.modules() if hasattr(part, "get_quantized_weight")]
