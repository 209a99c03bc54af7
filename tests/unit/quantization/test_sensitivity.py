"""The noise of each layer, alone and accumulated."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from small_networks import NETWORKS, Network, reference
from torch import nn

from qgate.quantization.backends import FbgemmBackend
from qgate.quantization.fused.backend import FusedBackend
from qgate.quantization.layers import float_graph
from qgate.quantization.observers import PerTensorMinMaxObserver
from qgate.quantization.sensitivity import LayerNoise, Power, layer_noise

SEEDS = (1, 2, 3)


class Outlier(nn.Module):
    """Three layers; one channel of the second has weights a thousand times the others'."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = (nn.Conv2d(8, 8, 3, padding=1) for _ in range(3))
        self.second.weight.data[3] *= 1000
        self.third.weight.data[:, 3] /= 1000

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.third(self.second(self.first(x).relu()).relu())


OUTLIER = Network(Outlier, (1, 8, 8, 8))


def noise_of(network: Network, graph: torch.fx.GraphModule, backend: object = None) -> dict[str, LayerNoise]:
    config = (backend or FbgemmBackend()).backend_config()
    floats = float_graph(network.module(), config, network.non_traceable)
    return {noise.layer: noise for noise in layer_noise(floats, graph, [network.inputs(seed) for seed in SEEDS])}


@pytest.mark.parametrize("backend", [FbgemmBackend, FusedBackend])
@pytest.mark.parametrize("name", NETWORKS)
def test_every_layer_of_every_network_is_measured(name: str, backend: type) -> None:
    network, made = NETWORKS[name], backend()
    modules = dict(network.module().named_modules())

    found = noise_of(network, reference(network, made), made)

    weighted = {key for key, module in modules.items() if isinstance(module, nn.Conv2d | nn.Linear)}
    assert weighted <= set(found)
    assert all(noise.alone.snr > 30 and noise.accumulated.snr > 30 for noise in found.values())
    assert not {layer for layer in found if "quantize" in layer}


@pytest.mark.parametrize("name", ["conv_bn_silu", "residual", "linear"])
def test_accumulated_noise_is_not_less_than_a_layers_own(name: str) -> None:
    found = noise_of(NETWORKS[name], reference(NETWORKS[name]))

    for layer, noise in found.items():
        # Errors of one layer may cancel a little of those of another.
        assert noise.accumulated.share > 0.95 * noise.alone.share, layer


@pytest.mark.parametrize("backend", [FbgemmBackend, FusedBackend])
def test_weights_with_an_outlier_channel_and_one_scale_are_the_noisiest_by_themselves(backend: type) -> None:
    # The scale is the outlier's, and of the other channels, whose part the next layer makes equal, little is left.
    graph = reference(OUTLIER, backend(), weight=PerTensorMinMaxObserver)

    found = noise_of(OUTLIER, graph, backend())

    assert min(found, key=lambda layer: found[layer].alone.snr) == "second"
    assert found["second"].alone.snr < 5
    assert found["third"].accumulated.snr < found["third"].alone.snr - 5


@pytest.mark.parametrize("layer", ["stem.0", "block.0"])
def test_a_scale_that_is_20_times_too_great_is_the_worst_alone_and_spoils_what_follows(layer: str) -> None:
    network = NETWORKS["residual"]
    sound, graph = reference(network), reference(network)
    dict(graph.named_buffers())[f"{layer.replace('.', '_')}_scale_0"].mul_(20)

    before, after = noise_of(network, sound), noise_of(network, graph)

    assert min(after, key=lambda name: after[name].alone.snr) == layer
    for other in set(after) - {layer}:
        assert after[other].alone.snr == pytest.approx(before[other].alone.snr, abs=0.01)
    assert after["block.0"].accumulated.snr < before["block.0"].accumulated.snr - 10


def scale_and_zero_point(graph: torch.fx.GraphModule, layer: str) -> tuple[float, int]:
    node = next(node for node in graph.graph.nodes if node.target == layer)
    _, scale, zero_point, _ = next(iter(node.users)).args
    return float(graph.get_buffer(scale.target)), int(graph.get_buffer(zero_point.target))


def test_the_ratio_of_a_layer_alone_is_that_of_its_weights_and_its_output_in_int8() -> None:
    network = Network(lambda: nn.Sequential(nn.Linear(16, 32), nn.Linear(32, 4)), (32, 16))
    graph = reference(network)
    first = graph.get_submodule("0")
    scale, zero_point = scale_and_zero_point(graph, "0")

    found = noise_of(network, graph)["0"].alone

    signal, noise = np.zeros(32), np.zeros(32)
    float32 = network.module()[0]
    weight = np.rint(float32.weight.detach().numpy() / first.weight_scale.numpy()[:, None]).clip(-128, 127)
    for seed in SEEDS:
        (x,) = (value.numpy().astype(np.float64) for value in network.inputs(seed))
        bias = float32.bias.detach().numpy()
        real = x @ float32.weight.detach().numpy().T + bias
        made = x @ (weight * first.weight_scale.numpy()[:, None]).T + bias
        steps = (np.rint(made / scale) + zero_point).clip(0, 255)
        signal += (real**2).sum(0)
        noise += ((real - (steps - zero_point) * scale) ** 2).sum(0)
    assert signal.min() > 0.01 * np.median(signal)
    assert found.snr == pytest.approx(-10 * np.log10((noise / signal).mean()), abs=0.05)


def test_the_first_layers_noise_is_the_inputs_with_its_own() -> None:
    found = noise_of(NETWORKS["conv_bn_silu"], reference(NETWORKS["conv_bn_silu"]))

    assert found["input"].alone.snr == found["input"].accumulated.snr
    assert found["0.0"].accumulated.snr < found["0.0"].alone.snr


@pytest.mark.parametrize(
    ("real", "found", "expected"),
    [
        ([10.0, 10.0], [11.0, 9.0], 20.0),
        ([10.0, 0.1], [11.0, 0.11], 20.0),
        ([1.0, 2.0], [1.0, 2.0], math.inf),
        ([0.0, 0.0], [1.0, 0.0], -math.inf),
        ([1.0, 1.0], [math.nan, 1.0], -math.inf),
    ],
)
def test_channels_count_alike_and_the_ratio_has_its_ends(
    real: list[float], found: list[float], expected: float
) -> None:
    power = Power()

    for _ in range(3):
        power.add(torch.tensor([real]), torch.tensor([found]))

    assert power.snr == pytest.approx(expected)


def test_a_channel_without_signal_does_not_outweigh_all_others() -> None:
    power = Power()

    power.add(torch.tensor([[10.0, 10.0, 0.0]]), torch.tensor([[11.0, 9.0, 0.1]]))

    assert power.snr == pytest.approx(-10 * math.log10((0.01 + 0.01 + 0.01 / 1.0) / 3))


def test_neither_graph_nor_inputs_are_changed() -> None:
    network = NETWORKS["residual"]
    graph, inputs = reference(network), network.inputs()
    before = {name: value.clone() for name, value in graph.named_buffers()}

    layer_noise(float_graph(network.module(), FbgemmBackend().backend_config()), graph, [inputs])

    assert torch.equal(inputs[0], network.inputs()[0])
    assert all(torch.equal(value, before[name]) for name, value in graph.named_buffers())
