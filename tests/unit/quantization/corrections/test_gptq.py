from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from small_networks import BACKENDS, NETWORKS, reference
from torch import nn

from qgate.quantization.codec import decode, encode
from qgate.quantization.corrections.correct import correct
from qgate.quantization.fused import FusedBackend
from qgate.quantization.observers import MinMaxObserver, PerChannelMinMaxObserver, PerTensorMinMaxObserver
from qgate.quantization.prepare import Recipe, convert, prepare, quiet_torch_ao

if TYPE_CHECKING:
    from collections.abc import Callable

ALL_BACKENDS = {**BACKENDS, "fused": FusedBackend}
BYTE_SCALE = 1 / 16
UNBATCHED = "one sample without a batch"
Sample = tuple[torch.Tensor]

LAYERS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "pointwise": (lambda: nn.Conv2d(16, 8, 1), (1, 16, 12, 12)),
    "strided, dilated, padded": (lambda: nn.Conv2d(8, 8, 3, 2, 2, 2), (1, 8, 16, 16)),
    "oblong": (lambda: nn.Conv2d(8, 8, (1, 3), (2, 1), (0, 1)), (1, 8, 16, 16)),
    "grouped": (lambda: nn.Conv2d(16, 8, 3, groups=2), (1, 16, 12, 12)),
    "one dimension": (lambda: nn.Conv1d(8, 8, 5, padding=2), (1, 8, 64)),
    "linear": (lambda: nn.Linear(16, 8), (64, 16)),
    "linear on tokens": (lambda: nn.Linear(16, 8), (2, 32, 16)),
    UNBATCHED: (lambda: nn.Conv2d(16, 8, 3), (16, 12, 12)),
    "many samples a batch": (lambda: nn.Conv2d(16, 8, 1), (6, 16, 5, 5)),
    "more places than are drawn": (lambda: nn.Conv2d(16, 8, 1), (1, 16, 48, 48)),
}


def made(name: str) -> tuple[nn.Module, list[Sample]]:
    """Give a layer, and samples whose channels hang together as those of images do: errors can make up for others."""
    make, shape = LAYERS[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layer = make().eval()
        axis = -1 if isinstance(layer, nn.Linear) else 0 if name == UNBATCHED else 1
        mix = torch.randn(2, shape[axis])
        places = torch.Size(shape).numel() // shape[axis]
        around = [size for place, size in enumerate(shape) if place != axis % len(shape)]
        values = [torch.randn(places, 2) @ mix + torch.randn(places, shape[axis]) / 10 + 8 for _ in range(12)]
        values = [(value / BYTE_SCALE).round().clamp(0, 255) * BYTE_SCALE for value in values]
        return nn.Sequential(layer), [(value.reshape(*around, shape[axis]).movedim(-1, axis),) for value in values]


def quantized(module: nn.Module, samples: list[Sample], backend: Any = None, **recipe: Any) -> torch.fx.GraphModule:
    config = (backend or BACKENDS["fbgemm"]()).backend_config()
    settings = {"activation": MinMaxObserver, "weight": PerChannelMinMaxObserver, "reduce_range": False}
    settings |= recipe
    observed = prepare(module, Recipe(**settings), config, samples[0])
    with torch.no_grad(), quiet_torch_ao():
        for sample in samples:
            observed(*sample)
    return convert(observed, config)


def rounded(graph: torch.fx.GraphModule, samples: list[Sample]) -> torch.fx.GraphModule:
    correct(graph, samples, rounding=True, bias=False, advance=lambda: None)
    return graph


def int8_layers(graph: torch.fx.GraphModule) -> list[Any]:
    return [layer for layer in graph.modules() if hasattr(layer, "get_quantized_weight")]


def integers(layer: Any) -> torch.Tensor:
    return layer.get_quantized_weight().int_repr().long()


def in_steps(weight: torch.Tensor, layer: Any) -> torch.Tensor:
    """Give a float weight as multiples of a layer's scales."""
    return weight.detach().double() / layer.weight_scale.double().reshape(-1, *[1] * (weight.ndim - 1))


@pytest.mark.parametrize("weight", [PerChannelMinMaxObserver, PerTensorMinMaxObserver], ids=lambda kind: kind.name)
@pytest.mark.parametrize("name", LAYERS)
def test_a_layers_error_is_less_than_by_rounding_to_nearest(name: str, weight: Any) -> None:
    """By weights alone: inputs are bytes, which stay as they are. On samples that nothing was fitted to."""
    module, samples = made(name)
    samples, fresh = samples[:8], samples[8:]
    graph = quantized(module, samples, weight=weight, byte_scale=BYTE_SCALE)
    (layer,) = int8_layers(graph)

    def error() -> float:
        with torch.no_grad(), quiet_torch_ao():
            return sum(float((layer(*sample) - module(*sample)).square().sum()) for sample in fresh)

    nearest = error()
    rounded(graph, samples)

    assert error() < 0.6 * nearest


@pytest.mark.parametrize("name", ["conv_bn_silu", "residual", "depthwise", "grouped", "linear", "transposed", "viewed"])
def test_weights_are_rounded_down_or_up_and_leave_the_room_that_they_must(name: str) -> None:
    """Two products of 181 and a weight fit in 16 bits."""
    network = NETWORKS[name]
    graph = reference(network, reduce_range=True)
    before = [in_steps(layer.weight, layer) for layer in int8_layers(graph)]

    rounded(graph, [network.inputs(seed) for seed in range(1, 9)])

    for layer, real in zip(int8_layers(graph), before, strict=True):
        found = integers(layer)
        assert float((found - real).abs().max()) < 1 + 1e-4
        if not isinstance(layer, nn.ConvTranspose2d):
            channels = found.flatten(1).sort(dim=1).values
            assert 181 * int(channels[:, -2:].sum(1).max()) <= 2**15 - 1
            assert 181 * int(channels[:, :2].sum(1).min()) >= -(2**15)


def test_float_weights_are_the_integers_in_steps() -> None:
    module, samples = made("grouped")
    (layer,) = int8_layers(rounded(quantized(module, samples), samples))

    assert torch.allclose(in_steps(layer.weight, layer), integers(layer).double(), atol=1e-4)
    assert torch.allclose(layer.weight, layer.get_weight(), rtol=1e-6)


def test_clipped_weights_stay_clipped() -> None:
    class Clips(PerChannelMinMaxObserver):
        name = "clips"

        def bounds(self) -> tuple[torch.Tensor, torch.Tensor]:
            low, high = super().bounds()
            return low / 2, high / 2

    module, samples = made("pointwise")
    (layer,) = int8_layers(quantized(module, samples, weight=Clips))
    clipped = in_steps(layer.weight, layer).abs() > 128

    (layer,) = int8_layers(rounded(quantized(module, samples, weight=Clips), samples))

    assert clipped.any()
    assert bool((integers(layer)[clipped].abs() >= 127).all())


def test_inputs_that_are_always_zero_do_no_harm() -> None:
    module, samples = made("pointwise")
    dead = [(sample * (torch.arange(16) < 4).reshape(1, 16, 1, 1),) for (sample,) in samples]
    graph = quantized(module, dead)
    (nearest,) = (integers(layer) for layer in int8_layers(graph))

    (found,) = (integers(layer) for layer in int8_layers(rounded(graph, dead)))

    assert torch.equal(found[:, 4:], nearest[:, 4:])


def test_error_of_quantized_inputs_is_made_up_for() -> None:
    """Inputs that are clipped to half of what they were: weights grow as far as rounding up lets them."""
    module = nn.Sequential(nn.Conv2d(2, 1, 1, bias=False))
    module[0].weight.data = torch.tensor([0.504, 1.0]).reshape(1, 2, 1, 1)
    generator = torch.Generator().manual_seed(0)
    sample = (torch.rand(1, 2, 16, 16, generator=generator),)
    graph = quantized(module, [sample])
    scale = next(value for name, value in graph.named_buffers() if "scale" in name and "weight" not in name)
    scale.mul_(0.5)
    (layer,) = int8_layers(graph)
    real = in_steps(module[0].weight, layer)

    rounded(graph, [sample])

    assert integers(layer)[0, 0] == real[0, 0].ceil()


@pytest.mark.parametrize("backend", ALL_BACKENDS)
def test_an_artifact_keeps_what_was_rounded(backend: str) -> None:
    network, kernels = NETWORKS["residual"], ALL_BACKENDS[backend]()
    graph = rounded(reference(network, kernels), [network.inputs(seed) for seed in range(1, 9)])
    kept = decode(*encode(graph, network.inputs()))

    with torch.no_grad(), quiet_torch_ao():
        expected, found = (module(*network.inputs(9)) for module in (graph, kept))
        int8 = kernels.lower(kept, network.inputs())(*network.inputs(9))

    assert all(map(torch.equal, map(integers, int8_layers(graph)), map(integers, int8_layers(kept))))
    assert torch.allclose(found, expected, atol=1e-6)
    assert float((int8 - expected).abs().max()) < 0.05 * float(expected.abs().max())


@pytest.mark.parametrize("name", ["functional", "transposed", "kept_whole", "called_twice", "concatenated"])
def test_what_cannot_be_rounded_is_left_as_it_is(name: str) -> None:
    network = NETWORKS[name]
    graph = reference(network)
    left = {
        "functional": [],
        "transposed": ["1"],
        "kept_whole": [],
        "called_twice": ["again"],
        "concatenated": [],
    }[name]
    before = {layer: integers(graph.get_submodule(layer)) for layer in left}

    rounded(graph, [network.inputs(seed) for seed in range(1, 9)])

    for layer, expected in before.items():
        assert torch.equal(integers(graph.get_submodule(layer)), expected)
