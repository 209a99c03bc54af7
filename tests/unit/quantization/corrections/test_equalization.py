from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from small_networks import BACKENDS, Network, reference
from torch import nn

from qgate.quantization.corrections.equalization import equalize
from qgate.quantization.fused import FusedBackend
from qgate.quantization.layers import float_graph, layer_errors
from qgate.quantization.observers import MinMaxObserver, PerChannelMinMaxObserver, PerTensorMinMaxObserver
from qgate.quantization.prepare import Recipe, prepare, quiet_torch_ao

if TYPE_CHECKING:
    from collections.abc import Callable


def uneven(layer: nn.Module) -> nn.Module:
    """Give each output channel of a layer another size, over two decades."""
    with torch.no_grad(), quiet_torch_ao():
        layer.weight *= torch.logspace(-1, 1, len(layer.weight)).reshape(-1, *[1] * (layer.weight.ndim - 1))
    return layer


class Joined(nn.Module):
    """Two layers whose channels are joined, and read by two others."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = uneven(nn.Conv2d(3, 4, 1)), uneven(nn.Conv2d(3, 6, 3, padding=1))
        self.first, self.second = nn.Conv2d(10, 4, 1), nn.Conv2d(10, 10, 3, groups=5)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        joined = torch.cat([self.left(x).relu(), nn.functional.leaky_relu(self.right(x))], 1)
        return self.first(nn.functional.max_pool2d(joined, 2)), self.second(joined)


class Summed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.block, self.head = uneven(nn.Conv2d(3, 4, 1)), uneven(nn.Conv2d(4, 4, 1)), nn.Conv2d(4, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        return self.head(x + self.block(x).relu())


def between(*behind: Callable[[], nn.Module], head: Callable[[], nn.Module] = lambda: nn.Conv2d(8, 4, 1)) -> Network:
    return Network(lambda: nn.Sequential(uneven(nn.Conv2d(3, 8, 3, padding=1)), *(make() for make in behind), head()))


EQUALIZED = {
    "nothing between": (between(), 1),
    "relu": (between(nn.ReLU), 1),
    "leaky relu": (between(nn.LeakyReLU), 1),
    "batch norm, in place": (between(lambda: nn.BatchNorm2d(8), lambda: nn.ReLU(inplace=True)), 1),
    "pooling": (between(nn.ReLU, lambda: nn.AvgPool2d(2), lambda: nn.Upsample(scale_factor=2)), 1),
    "linear": (
        between(nn.ReLU, lambda: nn.AdaptiveAvgPool2d(1), nn.Flatten, head=lambda: nn.Linear(8, 4)),
        1,
    ),
    "depthwise": (
        between(lambda: uneven(nn.Conv2d(8, 8, 3, groups=8)), nn.ReLU),
        2,
    ),
    "grouped": (between(nn.ReLU, head=lambda: nn.Conv2d(8, 6, 3, groups=2)), 1),
    "joined": (Network(Joined), 2),
    "perceptron": (Network(lambda: nn.Sequential(uneven(nn.Linear(6, 8)), nn.ReLU(), nn.Linear(8, 4)), (5, 6)), 1),
    "tokens": (Network(lambda: nn.Sequential(uneven(nn.Linear(6, 8)), nn.Linear(8, 4)), (2, 5, 6)), 1),
}
LEFT_ALONE = {
    "silu": between(nn.SiLU),
    "sigmoid": between(nn.Sigmoid),
    "relu6": between(nn.ReLU6),
    "sum": Network(Summed),
    "many positions flattened": between(nn.Flatten, head=lambda: nn.Linear(8 * 64, 4)),
    "linear along the width": between(head=lambda: nn.Linear(8, 4)),
    "pooling of tokens": Network(
        lambda: nn.Sequential(uneven(nn.Linear(6, 8)), nn.AvgPool2d(1), nn.Linear(8, 4)), (1, 1, 5, 6)
    ),
}


def spread(weight: torch.Tensor) -> float:
    """Give how many times as great the greatest channel is as the least."""
    channels = weight.detach().flatten(1).abs().amax(1)
    return float(channels.max() / channels.min())


def outputs(module: nn.Module, network: Network) -> list[torch.Tensor]:
    with torch.no_grad(), quiet_torch_ao():
        found = module(*network.inputs(3))
    return list(found) if isinstance(found, tuple) else [found]


def prepared(network: Network, *, equalization: bool, backend: object = None) -> torch.fx.GraphModule:
    recipe = Recipe(MinMaxObserver, PerChannelMinMaxObserver, reduce_range=False, equalization=equalization)
    config = (backend or BACKENDS["fbgemm"]()).backend_config()
    return prepare(network.module(), recipe, config, network.inputs())


@pytest.mark.parametrize("backend", [BACKENDS["fbgemm"](), FusedBackend()], ids=lambda backend: backend.name)
@pytest.mark.parametrize("name", EQUALIZED)
def test_an_equalized_network_computes_the_same(name: str, backend: object) -> None:
    network, _ = EQUALIZED[name]
    found = outputs(prepared(network, equalization=True, backend=backend), network)

    for expected, value in zip(outputs(network.module(), network), found, strict=True):
        assert torch.allclose(value, expected, rtol=1e-5, atol=1e-5 * float(expected.abs().max()))


@pytest.mark.parametrize("name", EQUALIZED)
def test_channels_have_less_different_ranges(name: str) -> None:
    network, count = EQUALIZED[name]
    before, after = (prepared(network, equalization=equalization) for equalization in (False, True))
    first = next(name for name, _ in before.named_parameters() if name.endswith("weight"))

    assert equalize(prepared(network, equalization=False), network.inputs()) == count
    assert spread(after.get_parameter(first)) < spread(before.get_parameter(first)) / 3


@pytest.mark.parametrize("name", LEFT_ALONE)
def test_what_a_factor_does_not_pass_is_left_alone(name: str) -> None:
    network = LEFT_ALONE[name]
    before, after = (prepared(network, equalization=equalization) for equalization in (False, True))

    for expected, value in zip(before.parameters(), after.parameters(), strict=True):
        assert torch.equal(expected, value)


def test_a_layer_that_is_called_twice_is_left_alone() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.again = uneven(nn.Conv2d(3, 4, 1)), uneven(nn.Conv2d(4, 4, 1))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.again(self.again(self.stem(x)))

    assert equalize(prepared(Network(Twice), equalization=False), Network(Twice).inputs()) == 0


def test_int8_weights_of_one_scale_lose_less() -> None:
    network, _ = EQUALIZED["depthwise"]
    (real,) = outputs(network.module(), network)

    def error(*, equalization: bool) -> float:
        graph = reference(network, weight=PerTensorMinMaxObserver, equalization=equalization)
        (found,) = outputs(graph, network)
        return float((found - real).square().mean())

    assert error(equalization=True) < error(equalization=False) / 2


def test_layers_are_held_against_equalized_ones() -> None:
    """Against float32's own layers, those of an equalized network would all look wrong."""
    network, _ = EQUALIZED["depthwise"]
    graph = reference(network, equalization=True)
    floats = float_graph(network.module(), BACKENDS["fbgemm"]().backend_config(), (), network.inputs())

    assert all(error.snr > 25 for error in layer_errors(floats, graph, network.inputs(3)))
