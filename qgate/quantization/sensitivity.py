"""How much noise int8 adds to each layer's output: by that layer alone, and with that of all before it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import fx
from torch.fx.node import map_aggregate, map_arg

from qgate.quantization.grouping import int8_layers
from qgate.quantization.prepare import quiet_torch_ao

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from qgate.quantization.layers import FloatGraph, Inputs

__all__ = ["LayerNoise", "Power", "layer_noise", "run_kept", "unconverted"]

_LEAST_SIGNAL = 0.01
_CONVERSIONS: set[Any] = {torch.quantize_per_tensor, torch.quantize_per_channel, "dequantize"}


class Power:
    """The power of a signal and of the noise on it, added up over samples, of each channel.

    Channels count alike, for what reads them has weights to fit: one with great values hides no other, and where they
    share a scale, that is the one to see. Channels are the second dimension.
    """

    def __init__(self) -> None:
        self.signal = torch.zeros(1, dtype=torch.float64)
        self.noise = torch.zeros(1, dtype=torch.float64)

    def add(self, real: torch.Tensor, found: torch.Tensor) -> None:
        """Add a tensor of float32 and what int8 made of it."""
        real = real.double()
        self.signal = self.signal + _of_channels(real)
        self.noise = self.noise + _of_channels(real - found.double())

    @property
    def is_known(self) -> bool:
        """Say whether anything but zeros was added."""
        return bool((self.signal + self.noise).any())

    @property
    def share(self) -> float:
        """Give the noise as a share of the signal, the mean of all channels: inf where noise is all there is.

        A channel without much signal is taken to have a hundredth of the median's.
        """
        if not bool(torch.isfinite(self.noise).all()):
            return math.inf
        typical = self.signal.median() or self.signal.mean()
        shares = self.noise / self.signal.clamp(min=_LEAST_SIGNAL * float(typical))
        return float(torch.where(self.noise > 0, shares, 0.0).mean())

    @property
    def snr(self) -> float:
        """Give the ratio of signal to noise in dB: inf without noise, -inf where noise is all there is."""
        share = self.share
        if not share:
            return math.inf
        return -10 * math.log10(share) if math.isfinite(share) else -math.inf


def _of_channels(value: torch.Tensor) -> torch.Tensor:
    squares = value.square()
    return squares.transpose(0, 1).flatten(1).sum(1) if value.ndim > 1 else squares.sum().reshape(1)


@dataclass(frozen=True)
class LayerNoise:
    """The noise on the output of a layer, named as the user's module: `alone`, and `accumulated` from the input on."""

    layer: str
    alone: Power
    accumulated: Power


def layer_noise(floats: FloatGraph, reference: fx.GraphModule, batches: Iterable[Inputs]) -> list[LayerNoise]:
    """Measure the layers of a reference graph on batches of inputs, in the order in which they run.

    `alone` is measured with float32's values going into the layer: what is left are its weights in int8, and the
    quantizations of what it computes. The input's quantization is a layer of its own, called as the input is.
    """
    layers = int8_layers(reference, floats)
    constants = _constants(reference)
    computed = [node for node in reference.graph.nodes if node.name not in constants]
    found = {layers[node.name]: LayerNoise(layers[node.name], Power(), Power()) for node in computed}
    for inputs in batches:
        real = run_kept(floats.module, inputs)
        ends = {layers[node.name]: node for node in computed if _is_signal(real.get(unconverted(node).name))}
        alone = _run(_Alone(reference, layers, constants, real), inputs)
        accumulated = run_kept(reference, inputs)
        for layer, end in ends.items():
            signal = real[unconverted(end).name]
            found[layer].alone.add(signal, alone[end.name])
            found[layer].accumulated.add(signal, accumulated[end.name])
    return [noise for noise in found.values() if noise.alone.is_known]


Values = dict[str, Any]


def _constants(reference: fx.GraphModule) -> set[str]:
    """Name the nodes that depend on no input: weights of functions, and their quantizations."""
    found: set[str] = set()
    for node in reference.graph.nodes:
        if node.op != "placeholder" and all(source.name in found for source in node.all_input_nodes):
            found.add(node.name)
    return found


def unconverted(node: fx.Node) -> fx.Node:
    """Give the node whose value a quantize or dequantize node hands on; any other node itself."""
    while node.target in _CONVERSIONS:
        node = node.all_input_nodes[0]
    return node


def _is_signal(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.is_floating_point()


def run_kept(module: fx.GraphModule, inputs: Inputs) -> Values:
    """Run a graph on a batch and give what each of its nodes gives, by name."""
    return _run(_Kept(module), inputs)


def _run(walk: _Kept, inputs: Inputs) -> Values:
    with torch.no_grad(), quiet_torch_ao():
        walk.run(*(value.clone() for value in inputs))
    return walk.values


class _Kept(fx.Interpreter):
    """Keeps what each node of a graph gives, as it is before something changes it in place."""

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module)
        self.values: Values = {}

    def run_node(self, n: fx.Node) -> Any:
        """Run one node and keep its value."""
        value = super().run_node(n)
        self.values[n.name] = _real(value)
        return value


class _Alone(_Kept):
    """Runs a reference graph; what a layer reads of other layers are float32's values, `real` by the node's name."""

    def __init__(self, module: fx.GraphModule, layers: Mapping[str, str], constants: set[str], real: Values) -> None:
        super().__init__(module)
        self.layers = layers
        self.constants = constants
        self.real = dict(real)

    def map_nodes_to_values(self, args: Any, n: fx.Node) -> Any:
        """Give a node its arguments: those of its own layer as they are, others as float32 has them."""

        def value_of(source: fx.Node) -> Any:
            is_own = source.name in self.constants or self.layers[source.name] == self.layers[n.name]
            return self.env[source] if is_own else map_aggregate(self._real_of(source), _copy)

        return map_arg(args, value_of)

    def _real_of(self, node: fx.Node) -> Any:
        """Give float32's value of a node; what only int8's graph has is taken as it was computed."""
        return self.real.get(unconverted(node).name, self.env[node])


def _real(value: Any) -> Any:
    return value.dequantize().clone() if isinstance(value, torch.Tensor) else value


def _copy(value: Any) -> Any:
    return value.clone() if isinstance(value, torch.Tensor) else value
