"""Values that are only moved stay bytes, and keep their scale."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from fused_networks import SHAPE, Wired, assert_faithful, compare, conv, conv_bn
from small_networks import Network
from torch import nn
from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

IN, OUT, RELU = "QuantizeInput", "layer+float", "layer+relu"


def network(function: Callable[[Any, Tensor], Any], channels: int = 8) -> Network:
    """Put a function of a convolution's result before another convolution."""
    modules = {
        "stem": lambda: conv_bn(3, 8, nn.ReLU()),
        "block": lambda: conv_bn(8, 8, nn.ReLU()),
        "thin": lambda: conv_bn(4, 4, nn.ReLU()),
        "down": lambda: conv_bn(8, 8, nn.ReLU(), stride=2),
        "head": lambda: conv(channels, 4, 1),
    }
    return Network(
        lambda: Wired(lambda s, x: s.head(function(s, s.stem(x))), **{name: make() for name, make in modules.items()}),
        SHAPE,
    )


def chunk(s: Any, y: Tensor) -> Tensor:
    halves = y.chunk(2, 1)
    return torch.cat((halves[0], s.thin(halves[1])), 1)


def split(s: Any, y: Tensor) -> Tensor:
    parts = torch.split(y, [4, 4], 1)
    return torch.cat((s.thin(parts[1]), parts[0]), 1)


def shuffle(s: Any, y: Tensor) -> Tensor:
    batch, height, width = y.size(0), y.size(2), y.size(3)
    return y.view(batch, 2, 4, height, width).transpose(1, 2).contiguous().view(batch, -1, height, width)


def spatial_pyramid(s: Any, y: Tensor) -> Tensor:
    return torch.cat([y, *(functional.max_pool2d(y, size, 1, size // 2) for size in (3, 5, 9))], 1)


def upsampled(s: Any, y: Tensor) -> Tensor:
    return torch.cat([functional.interpolate(s.down(y), scale_factor=2, mode="nearest"), y], 1)


def upsampled_to_size(s: Any, y: Tensor) -> Tensor:
    return torch.cat([functional.interpolate(s.down(y), size=y.shape[2:]), y], 1)


MOVES: dict[str, tuple[Callable[[Any, Tensor], Any], int, set[str]]] = {
    "concatenation": (lambda s, y: torch.cat([s.block(y), y], 1), 16, {"cat"}),
    "nested concatenation": (lambda s, y: torch.cat([torch.cat([y, s.block(y)], 1), y], dim=1), 24, {"cat"}),
    "of pooled values": (spatial_pyramid, 32, {"cat", "MaxPool"}),
    "chunks": (chunk, 8, {"chunk", "getitem", "cat", "ByteTable"}),
    "parts": (split, 8, {"split", "getitem", "cat", "ByteTable"}),
    "slice": (lambda s, y: y[:, 2:6, 1:, ::2], 4, {"getitem"}),
    "zeros around": (lambda s, y: functional.pad(y, (0, 1, 2, 1)), 8, {"pad"}),
    "cut off": (lambda s, y: functional.pad(y, (0, -1, 0, 1)), 8, {"pad"}),
    "upsampled": (upsampled, 16, {"interpolate", "cat"}),
    "upsampled to a size": (upsampled_to_size, 16, {"interpolate", "cat", "getitem"}),
    "channel shuffle": (shuffle, 8, {"size", "reshape", "transpose", "contiguous"}),
}


@pytest.mark.parametrize(("function", "channels", "kinds"), MOVES.values(), ids=MOVES)
def test_moving_stays_in_bytes(function: Any, channels: int, kinds: set[str]) -> None:
    result = compare(network(function, channels))

    assert set(result.kinds) - {RELU} == {IN, OUT, *kinds}
    assert_faithful(result)


MODULES: dict[str, tuple[Callable[[], nn.Module], int, str]] = {
    "zero padding": (lambda: nn.ZeroPad2d((1, 0, 2, 1)), 8, "pad"),
    "upsampling": (lambda: nn.Upsample(scale_factor=2), 8, "Upsample"),
    "pixel shuffle": (lambda: nn.PixelShuffle(2), 2, "PixelShuffle"),
    "pixel unshuffle": (lambda: nn.PixelUnshuffle(2), 32, "PixelUnshuffle"),
    "channel shuffle": (lambda: nn.ChannelShuffle(2), 8, "ChannelShuffle"),
}


@pytest.mark.parametrize(("make", "channels", "kind"), MODULES.values(), ids=MODULES)
def test_modules_that_move_stay_in_bytes(make: Any, channels: int, kind: str) -> None:
    result = compare(Network(lambda: nn.Sequential(conv(3, 8), make(), conv(channels, 4, 1)), SHAPE))

    assert result.kinds == [IN, "layer", kind, OUT]
    assert_faithful(result)


def pooling(*arguments: Any, **options: Any) -> Network:
    pool = nn.MaxPool2d(*arguments, **options)
    return Network(lambda: nn.Sequential(conv(3, 8), nn.Hardswish(), pool, conv(8, 4, 1)), SHAPE)


POOLS: dict[str, Network] = {
    "2": pooling(2),
    "3, stride 2, padding 1": pooling(3, 2, 1),
    "3, stride 1": pooling(3, 1, 1),
    "asymmetric": pooling((3, 2), (2, 1), (1, 0)),
    "5": pooling(5, stride=1, padding=2),
    "7, stride 3, padding 3": pooling(7, 3, 3),
    "4, stride 3": pooling(4, 3, 2),
    "1, stride 2": pooling(1, 2),
    "function": network(lambda s, y: functional.max_pool2d(y, kernel_size=3, stride=2, padding=1)),
    "torch's function": network(lambda s, y: torch.max_pool2d(y, 3, 2)),
    "of a signed range": Network(lambda: nn.Sequential(conv(3, 8), nn.MaxPool2d(3, 2, 1), conv(8, 4, 1)), SHAPE),
}


@pytest.mark.parametrize("pool", POOLS.values(), ids=POOLS)
def test_max_pooling_is_exact_on_bytes(pool: Network) -> None:
    result = compare(pool)

    assert "MaxPool" in result.kinds
    assert not {"dequantize", "as_bytes"} & set(result.kinds)
    assert_faithful(result)


FLOATS: dict[str, Network] = {
    "up to the edge": pooling(2, ceil_mode=True),
    "spread": pooling(3, dilation=2),
    "with places": network(lambda s, y: functional.max_pool2d(y, 2, return_indices=True)[0]),
    "a number around": network(lambda s, y: functional.pad(y, (0, 1, 0, 1), value=0.5)),
    "reflected": network(lambda s, y: functional.pad(y, (0, 1, 0, 1), mode="reflect")),
    "bilinear": network(lambda s, y: functional.interpolate(y, scale_factor=2, mode="bilinear")),
    "exactly nearest": Network(
        lambda: nn.Sequential(conv(3, 8), nn.Upsample(scale_factor=2, mode="nearest-exact"), conv(8, 4)), SHAPE
    ),
}


@pytest.mark.parametrize("other", FLOATS.values(), ids=FLOATS)
def test_what_bytes_cannot_do_falls_back(other: Network) -> None:
    result = compare(other)

    assert "as_bytes" in result.kinds
    assert_faithful(result, share=0.05)


def test_parts_of_unlike_scales_are_brought_to_one() -> None:
    def wiring(s: Any, x: Tensor) -> Any:
        halves = s.stem(x).chunk(2, 1)
        return s.head(torch.cat((halves[0], s.thin(halves[1] * 3.0)), 1)), s.other(halves[1])

    def make() -> nn.Module:
        return Wired(wiring, stem=conv(3, 8), thin=conv(4, 4), head=conv(8, 4, 1), other=conv(4, 4, 1))

    result = compare(Network(make, SHAPE))

    assert "ByteTable" in result.kinds
    assert_faithful(result)


LINEAR: dict[str, tuple[Callable[[Any, Tensor], Any], int, list[str]]] = {
    "flattened": (lambda s, y: torch.flatten(y, 1), 8 * 168, ["flatten"]),
    "viewed": (lambda s, y: y.view(y.size(0), -1), 8 * 168, ["size", "reshape"]),
    "channels last": (lambda s, y: y.permute(0, 2, 3, 1), 8, ["permute"]),
    "a sequence": (lambda s, y: y.flatten(2).transpose(1, 2), 8, ["flatten", "transpose"]),
}


@pytest.mark.parametrize(("function", "features", "kinds"), LINEAR.values(), ids=LINEAR)
def test_a_linear_layer_reads_moved_bytes(function: Any, features: int, kinds: list[str]) -> None:
    def make() -> nn.Module:
        return Wired(lambda s, x: s.head(function(s, s.stem(x))), stem=conv(3, 8), head=nn.Linear(features, 4))

    result = compare(Network(make, SHAPE))

    assert result.kinds == [IN, "layer", *kinds, OUT]
    assert_faithful(result)


MEANS: dict[str, Callable[[Any, Tensor], Any]] = {
    "module": lambda s, y: s.pool(y),
    "function": lambda s, y: functional.adaptive_avg_pool2d(y, 1),
    "mean": lambda s, y: y.mean((2, 3), keepdim=True),
}


@pytest.mark.parametrize("function", MEANS.values(), ids=MEANS)
def test_a_global_mean_is_one_of_torchs_quantized_kernels(function: Any) -> None:
    def make() -> nn.Module:
        modules = {"stem": conv(3, 8), "pool": nn.AdaptiveAvgPool2d(1), "head": nn.Linear(8, 4)}
        return Wired(lambda s, x: s.head(torch.flatten(function(s, s.stem(x)), 1)), **modules)

    result = compare(Network(make, SHAPE))

    assert "dequantize" not in result.kinds
    assert_faithful(result, share=0.05)


OUTPUTS: dict[str, Callable[[Any, Tensor], Any]] = {
    "dict and list": lambda s, y: {"a": s.head(y), "b": y, "c": [functional.max_pool2d(y, 2), y + 1]},
    "tuple": lambda s, y: (s.head(y), s.block(y)),
    "activation": lambda s, y: s.head(y).sigmoid(),
    "view": lambda s, y: s.head(y).view(y.shape[0], 2, 2, 12, 14).permute(0, 1, 3, 4, 2).contiguous(),
    "sum": lambda s, y: s.block(y) + y,
}


@pytest.mark.parametrize("function", OUTPUTS.values(), ids=OUTPUTS)
def test_outputs_are_what_the_reference_gives(function: Any) -> None:
    def make() -> nn.Module:
        modules = {"stem": conv_bn(3, 8, nn.ReLU()), "block": conv_bn(8, 8, nn.ReLU()), "head": conv(8, 4, 1)}
        return Wired(lambda s, x: function(s, s.stem(x)), **modules)

    network = Network(make, SHAPE)

    result = compare(network)

    has_table = any(kind.endswith("table") for kind in result.kinds)
    assert_faithful(result, share=0.35 if has_table else 0.005)
    with torch.no_grad():
        expected = network.module()(*network.inputs(3))
    assert type(result.given) is type(expected)
