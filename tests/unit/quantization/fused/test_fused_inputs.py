from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
import torch
from fused_networks import SHAPE, Wired, assert_faithful, compare, conv, conv_bn, flat, fused
from small_networks import Network
from torch import nn
from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Callable

BYTE = 1 / 255


@dataclass(frozen=True)
class Images(Network):
    """Float inputs are bytes times 1/255, as a loader of images gives them."""

    def bytes(self, seed: int = 1, shape: tuple[int, ...] | None = None) -> torch.Tensor:
        generator = torch.Generator().manual_seed(seed)
        return torch.randint(0, 256, shape or self.shape, generator=generator, dtype=torch.uint8)

    def inputs(self, seed: int = 1) -> tuple[torch.Tensor, ...]:
        return (self.bytes(seed) * BYTE,)


def focus(s: Any, x: torch.Tensor) -> Any:
    corners = [x[..., row::2, column::2] for column in (0, 1) for row in (0, 1)]
    return s.head(s.wide(torch.cat(corners, 1)))


def wired(wiring: Callable[..., Any]) -> Images:
    def make() -> nn.Module:
        modules = {"stem": conv_bn(3, 8, nn.ReLU()), "wide": conv_bn(12, 8, nn.SiLU()), "head": conv(8, 4, 1)}
        return Wired(wiring, **modules)

    return Images(make, SHAPE)


NETWORKS: dict[str, Images] = {
    "convolution": wired(lambda s, x: s.head(s.stem(x))),
    "6x6 of stride 2": Images(lambda: nn.Sequential(nn.Conv2d(3, 8, 6, 2, 2), nn.SiLU(), conv(8, 4, 1)), SHAPE),
    "focus": wired(focus),
    "zeros around": wired(lambda s, x: s.head(s.stem(functional.pad(x, (1, 2, 1, 2))))),
    "normalized": wired(lambda s, x: s.head(s.stem((x - 0.4) / 0.2))),
    "pooled": wired(lambda s, x: s.head(s.stem(functional.max_pool2d(x, 2)))),
    "concatenated": wired(lambda s, x: s.wide(torch.cat([s.stem(x), x, x[:, :1]], 1))),
    "shape asked": wired(lambda s, x: functional.interpolate(s.head(s.stem(x)), size=x.shape[2:])),
    "linear": Images(lambda: nn.Sequential(nn.Flatten(), nn.Linear(3 * 12 * 14, 4)), SHAPE),
}


@pytest.mark.parametrize("network", NETWORKS.values(), ids=NETWORKS)
def test_bytes_give_what_float32_gives_bit_for_bit(network: Images) -> None:
    _, lowered = fused(network, byte_scale=BYTE)
    image = network.bytes(3)

    with torch.no_grad():
        expected = flat(lowered(image * BYTE))
        plain = flat(lowered(image.clone()))
        last = flat(lowered(image.contiguous(memory_format=torch.channels_last)))

    assert torch.equal(plain, expected)
    assert torch.equal(last, expected)


@pytest.mark.parametrize("network", NETWORKS.values(), ids=NETWORKS)
def test_an_input_of_bytes_is_quantized_as_it_is(network: Images) -> None:
    result = compare(network, byte_scale=BYTE)

    assert_faithful(result, share=0.05)


def test_slices_of_an_image_are_slices_of_bytes() -> None:
    _, lowered = fused(NETWORKS["focus"], byte_scale=BYTE)

    sources = [module for module in lowered.modules() if type(module).__name__ == "QuantizeInput"]
    assert len(sources) == 1
    assert sources[0].table is None


def test_bytes_are_refused_where_nobody_said_what_they_stand_for() -> None:
    _, lowered = fused(NETWORKS["convolution"])

    with pytest.raises(TypeError, match="byte_scale"):
        lowered(torch.zeros(SHAPE, dtype=torch.uint8))


@pytest.mark.parametrize("as_bytes", [True, False])
@pytest.mark.parametrize("network", NETWORKS.values(), ids=NETWORKS)
def test_inputs_are_left_as_they_were_and_a_second_run_gives_the_same(network: Images, as_bytes: bool) -> None:
    _, lowered = fused(network, byte_scale=BYTE)
    image = network.bytes(3) if as_bytes else network.bytes(3) * BYTE
    before = image.clone()

    with torch.no_grad():
        first, second = flat(lowered(image)), flat(lowered(image))

    assert torch.equal(image, before)
    assert torch.equal(first, second)


@pytest.mark.parametrize("shape", [(1, 3, 12, 14), (5, 3, 12, 14), (1, 3, 20, 18), (3, 3, 31, 7)])
@pytest.mark.parametrize("name", ["convolution", "6x6 of stride 2", "pooled"])
def test_other_sizes_than_the_examples_give_what_the_reference_gives(name: str, shape: tuple[int, ...]) -> None:
    reference, lowered = fused(NETWORKS[name], byte_scale=BYTE)
    image = NETWORKS[name].bytes(4, shape)
    with torch.no_grad():
        lowered(NETWORKS[name].bytes(3))  # packs weights for the example's shape
        given, expected = flat(lowered(image)), flat(reference(image * BYTE))

    assert float((given - expected).square().mean().sqrt()) < 0.02 * float(expected.std())


def test_each_sample_of_a_batch_gives_what_it_gives_alone() -> None:
    _, lowered = fused(NETWORKS["6x6 of stride 2"], byte_scale=BYTE)
    image = NETWORKS["6x6 of stride 2"].bytes(3, (4, 3, 12, 14))

    with torch.no_grad():
        together = lowered(image)
        alone = torch.cat([lowered(image[index : index + 1]) for index in range(4)])

    assert torch.equal(together, alone)


@dataclass(frozen=True)
class Pairs(Images):
    def inputs(self, seed: int = 1) -> tuple[torch.Tensor, ...]:
        return (self.bytes(seed) * BYTE, self.bytes(seed + 100) * BYTE)


class Two(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.head = conv(3, 8), conv(3, 8), conv(8, 4, 1)

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.head(torch.relu(self.a(x) + self.b(y)))
        return result


def test_several_inputs() -> None:
    result = compare(Pairs(Two, SHAPE))

    assert result.kinds == ["QuantizeInput", "QuantizeInput", "layer", "layer+sum+relu", "layer+float"]
    assert_faithful(result)


def test_threads_that_run_one_module_at_once_get_the_same_results() -> None:
    def wiring(s: Any, x: torch.Tensor) -> Any:
        y = s.stem(x)
        z = functional.silu(s.head(y) + s.other(y))
        return s.last(torch.cat([z, functional.max_pool2d(z, 3, 1, 1)], 1))

    def make() -> nn.Module:
        return Wired(wiring, stem=conv_bn(3, 8, nn.SiLU()), head=conv(8, 8), other=conv(8, 8), last=conv(16, 4))

    network = Images(make, (1, 3, 64, 64))
    _, lowered = fused(network, byte_scale=BYTE)
    images = [network.bytes(seed) for seed in range(24)]
    with torch.no_grad():
        expected = [lowered(image) for image in images]

    def run(image: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode():
            return lowered(image)  # type: ignore[no-any-return]  # a module's result

    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(run, images * 4))

    assert all(torch.equal(result, wanted) for result, wanted in zip(results, expected * 4, strict=True))
