from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from small_networks import BACKENDS, NETWORKS, Network, conv_bn_silu, flat, reference
from torch import nn

from qgate.quantization.codec import decode, encode
from qgate.quantization.corrections.bias import mean_error
from qgate.quantization.corrections.correct import correct, count_layers
from qgate.quantization.corrections.lockstep import Both
from qgate.quantization.fused import FusedBackend
from qgate.quantization.prepare import quiet_torch_ao

if TYPE_CHECKING:
    from collections.abc import Callable

ALL_BACKENDS = {**BACKENDS, "fused": FusedBackend}
TWO_LAYERS = Network(lambda: nn.Sequential(conv_bn_silu(3, 8), nn.Conv2d(8, 4, 1)), (1, 3, 16, 16))


def samples(network: Network, count: int = 8) -> list[tuple[torch.Tensor, ...]]:
    return [network.inputs(seed) for seed in range(1, 1 + count)]


def corrected(graph: torch.fx.GraphModule, network: Network, advance: Callable[[], None] = lambda: None) -> Any:
    correct(graph, samples(network), rounding=False, bias=True, advance=advance)
    return graph


def channel_errors(graph: nn.Module, network: Network) -> np.ndarray:
    """Give the mean error of each channel of the output, on the samples that calibrated."""
    with torch.no_grad(), quiet_torch_ao():
        pairs = [(graph(*sample), network.module()(*sample)) for sample in samples(network)]
    errors = np.stack([(found - real).numpy() for found, real in pairs])
    return errors.mean(axis=(0, 1, 3, 4))


def first_layer(graph: torch.fx.GraphModule) -> Any:
    return next(module for module in graph.modules() if hasattr(module, "get_quantized_weight"))


@pytest.mark.parametrize("backend", ALL_BACKENDS)
def test_a_planted_shift_is_taken_back(backend: str) -> None:
    """With a fifth of its scale, the input is clipped, and each layer's mean is another."""
    graph = reference(TWO_LAYERS, ALL_BACKENDS[backend]())
    quantize = next(node for node in graph.graph.nodes if node.target is torch.quantize_per_tensor)
    graph.get_buffer(quantize.args[1].target).mul_(0.2)
    planted = np.abs(channel_errors(graph, TWO_LAYERS)).max()

    corrected(graph, TWO_LAYERS)

    assert planted > 0.01
    assert np.abs(channel_errors(graph, TWO_LAYERS)).max() < planted / 10


def test_errors_that_an_activation_flattens_do_not_count() -> None:
    """At -20, SiLU makes 0 of everything; at +20 its slope is 1. Of errors of 5 and 0.1, 0.1 is to be made up for."""
    real = torch.tensor([[-20.0, 20.0]]).reshape(1, 1, 2)
    both = Both(real, real - torch.tensor([5.0, 0.1]).reshape(1, 1, 2))

    assert float(mean_error([both], 1, nn.functional.silu)) == pytest.approx(0.1, abs=1e-5)
    assert float(mean_error([both], 1, None)) == pytest.approx((5 + 0.1) / 2)


def test_channels_that_relu_lets_nothing_through_of_are_left_alone() -> None:
    both = Both(torch.full((1, 1, 4), -3.0), torch.full((1, 1, 4), -2.0))

    assert float(mean_error([both], 1, torch.relu)) == 0


def test_the_mean_is_over_all_samples_and_places() -> None:
    generator = np.random.default_rng(0)
    real, found = generator.normal(size=(2, 3, 2, 5, 7, 9)).astype(np.float32)
    outputs = [Both(torch.from_numpy(one), torch.from_numpy(other)) for one, other in zip(real, found, strict=True)]

    shift = mean_error(outputs, 1, None)

    assert shift.numpy() == pytest.approx((real.astype(float) - found).mean(axis=(0, 1, 3, 4)), abs=1e-6)


def test_many_places_are_drawn_from() -> None:
    real = torch.randn(1, 2, 300, 300, generator=torch.Generator().manual_seed(0))

    shift = mean_error([Both(real, real - torch.tensor([1.0, -2.0]).reshape(1, 2, 1, 1))], 1, None)

    assert shift.tolist() == pytest.approx([1.0, -2.0], abs=1e-5)


@pytest.mark.parametrize("name", NETWORKS)
def test_every_kind_of_network_stays_as_close_to_float32(name: str) -> None:
    network = NETWORKS[name]
    graph = reference(network)
    steps: list[None] = []

    def error() -> float:
        with torch.no_grad(), quiet_torch_ao():
            pairs = [(flat(graph(*sample)), flat(network.module()(*sample))) for sample in samples(network)]
        return sum(float((found - real).square().sum()) for found, real in pairs)

    before = error()
    corrected(graph, network, lambda: steps.append(None))

    assert error() <= 1.1 * before
    assert len(steps) == count_layers(graph)


def test_a_layer_that_is_called_twice_is_left_as_it_is() -> None:
    graph = reference(NETWORKS["called_twice"])
    before = graph.get_submodule("again").bias.clone()

    corrected(graph, NETWORKS["called_twice"])

    assert torch.equal(graph.get_submodule("again").bias, before)


@pytest.mark.parametrize("backend", ALL_BACKENDS)
def test_a_layer_without_a_bias_is_given_one_that_the_artifact_keeps(backend: str) -> None:
    def make() -> nn.Module:
        layer = nn.Conv2d(3, 4, 1, bias=False)
        layer.weight.data += 0.3  # all inputs' errors add up
        return nn.Sequential(layer, nn.ReLU(), nn.Conv2d(4, 4, 1, bias=False))

    network = Network(make)
    graph = corrected(reference(network, ALL_BACKENDS[backend]()), network)
    kept = decode(*encode(graph, network.inputs()))

    with torch.no_grad(), quiet_torch_ao():
        expected, found = (module(*network.inputs(9)) for module in (graph, kept))
        int8 = ALL_BACKENDS[backend]().lower(kept, network.inputs())(*network.inputs(9))
    assert first_layer(graph).bias is not None
    assert torch.equal(found, expected)
    assert float((int8 - expected).abs().max()) < 0.05 * float(expected.abs().max())
