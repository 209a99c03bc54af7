"""Cross-layer equalization: the channels of a tensor brought to like ranges, without changing what a network computes.

Nagel et al. 2019, "Data-Free Quantization Through Weight Equalization and Bias Correction", section 4.1. Where
f(s x) = s f(x) for every s > 0, as for ReLU, a layer may divide a channel by s if all that read it multiply it by s.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.ao.quantization.observer import ObserverBase
from torch.nn import functional

from qgate.quantization.moves import argument
from qgate.quantization.readers import shapes

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["equalize"]

Node = Any  # torch.fx types each argument of a node as a union of twenty types
Layer = Any  # torch types a layer's weight as a tensor or a module

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_SWEEPS = 10  # a layer is in two pairs, and each undoes a little of what the other did
_POINTWISE: tuple[Any, ...] = (nn.ReLU, nn.LeakyReLU, nn.PReLU, nn.Identity, nn.Dropout, nn.Dropout2d, ObserverBase)
_POINTWISE_FUNCTIONS: set[Any] = {functional.relu, torch.relu, "relu", "relu_", functional.leaky_relu}
_SPATIAL: tuple[Any, ...] = (nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveMaxPool2d, nn.AdaptiveAvgPool2d, nn.Upsample)
_SPATIAL_FUNCTIONS: set[Any] = {
    *(functional.max_pool2d, torch.max_pool2d, functional.avg_pool2d, functional.adaptive_avg_pool2d),
    functional.interpolate,
}


@dataclass(frozen=True)
class _Reader:
    """A layer that reads channels; the first of them is its input number `place`."""

    layer: Layer
    place: int


@dataclass(frozen=True)
class _Channels:
    """Where a value has a layer's channels: along `axis`, from `place` on."""

    axis: int
    place: int = 0


def equalize(graph_module: torch.fx.GraphModule, example_inputs: tuple[torch.Tensor, ...]) -> int:
    """Equalize the layers of a traced float32 module whose batch norms are folded; give how many were.

    Only weights and biases change. Observers may stand in the graph, but must not have seen a value. A layer is left as
    it is where something reads it that does not hand a factor on: SiLU, a sum, the end of the network.
    """
    pairs = list(_Pairs(graph_module, example_inputs).find())
    with torch.no_grad():
        for _ in range(_SWEEPS):
            for maker, readers in pairs:
                _balance(maker, readers)
    return len(pairs)


def _balance(maker: Layer, readers: list[_Reader]) -> None:
    """Make a channel's greatest weight the same where it is made and where it is read."""
    made = maker.weight.flatten(1).abs().amax(1)
    read = torch.stack([_greatest(reader, len(made)) for reader in readers]).amax(0)
    divisor = torch.where((made > 0) & (read > 0), (made / read).sqrt(), 1.0)
    maker.weight /= divisor.reshape(-1, *[1] * (maker.weight.ndim - 1))
    if maker.bias is not None:
        maker.bias /= divisor
    for reader in readers:
        _multiply(reader, divisor)


def _columns(layer: Layer) -> torch.Tensor:
    """See a weight as (groups, outputs of a group, inputs of a group, values)."""
    weight, groups = layer.weight, getattr(layer, "groups", 1)
    return weight.view(groups, weight.shape[0] // groups, weight.shape[1], -1)  # type: ignore[no-any-return]


def _greatest(reader: _Reader, width: int) -> torch.Tensor:
    return _columns(reader.layer).abs().amax((1, 3)).flatten()[reader.place : reader.place + width]


def _multiply(reader: _Reader, factors: torch.Tensor) -> None:
    columns = _columns(reader.layer)
    every = columns.new_ones(columns.shape[0] * columns.shape[2])
    every[reader.place : reader.place + len(factors)] = factors
    columns *= every.view(columns.shape[0], 1, columns.shape[2], 1)


class _Pairs:
    """Finds the layers of a graph whose channels may be scaled, each with all that reads it."""

    def __init__(self, graph_module: torch.fx.GraphModule, example_inputs: tuple[torch.Tensor, ...]) -> None:
        self.nodes: list[Node] = list(graph_module.graph.nodes)
        self.modules: dict[str, Any] = dict(graph_module.named_modules(remove_duplicate=False))
        self.shapes: dict[Node, Any] = shapes(graph_module, example_inputs)
        self.calls = Counter(id(layer.weight) for layer in map(self._layer, self.nodes) if layer is not None)

    def find(self) -> Iterator[tuple[Layer, list[_Reader]]]:
        """Give pairs in the order in which the makers run."""
        for node in self.nodes:
            maker = self._layer(node)
            if maker is None or not self._hands_on_within(node):
                continue
            axis = len(self.shapes[node]) - 1 if isinstance(maker, nn.Linear) else 1
            readers = self._readers(node, _Channels(axis))
            layers = [maker, *(reader.layer for reader in readers or [])]
            if readers and all(self.calls[id(layer.weight)] == 1 for layer in layers):
                yield maker, readers

    def _layer(self, node: Node) -> Layer | None:
        """Give the layer that a node calls, by itself or with an activation that FX fused with it."""
        module = self.modules.get(str(node.target)) if node.op == "call_module" else None
        first = module[0] if isinstance(module, nn.Sequential) and len(module) else module
        return first if isinstance(first, (*_CONVOLUTIONS, nn.Linear)) else None

    def _hands_on_within(self, node: Node) -> bool:
        module = self.modules[str(node.target)]
        return not isinstance(module, nn.Sequential) or all(isinstance(part, _POINTWISE) for part in list(module)[1:])

    def _readers(self, node: Node, channels: _Channels) -> list[_Reader] | None:
        """List the layers that read a node's channels; None where anything else does."""
        found: list[_Reader] = []
        for user in node.users:
            readers = self._reads(user, node, channels)
            if readers is None:
                return None
            found += readers
        return found

    def _reads(self, user: Node, node: Node, channels: _Channels) -> list[_Reader] | None:
        layer = self._layer(user)
        if layer is not None:
            fits = channels.axis == (len(self.shapes[node]) - 1 if isinstance(layer, nn.Linear) else 1)
            return [_Reader(layer, channels.place)] if fits else None
        behind = self._behind(user, node, channels)
        return self._readers(user, behind) if behind else None

    def _behind(self, user: Node, node: Node, channels: _Channels) -> _Channels | None:
        """Say where a node's channels are behind `user`; None where a factor does not come through."""
        module = self.modules.get(str(user.target)) if user.op == "call_module" else None
        if isinstance(module, _POINTWISE) or user.target in _POINTWISE_FUNCTIONS:
            return channels
        is_image = channels.axis == 1 and len(self.shapes[node]) == 4  # noqa: PLR2004  # (N, C, H, W)
        if isinstance(module, _SPATIAL) or user.target in _SPATIAL_FUNCTIONS:
            return channels if is_image else None
        if isinstance(module, nn.Flatten) or user.target in {torch.flatten, "flatten"}:
            return channels if channels.axis == 1 and self.shapes[user] == self.shapes[node][:2] else None
        return self._joined(user, node, channels) if user.target is torch.cat else None

    def _joined(self, user: Node, node: Node, channels: _Channels) -> _Channels | None:
        parts = list(user.args[0])
        dimension = argument(user, 1, "dim", 0) % len(self.shapes[node])
        if dimension != channels.axis or parts.count(node) != 1:
            return None
        before = sum(self.shapes[part][dimension] for part in parts[: parts.index(node)])
        return _Channels(channels.axis, channels.place + before)
