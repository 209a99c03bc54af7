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

IN, OUT = "QuantizeInput", "layer+float"
RELU = "layer+relu"

LAYERS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], list[str]]] = {
    "batch norm": (lambda: nn.Sequential(conv_bn(3, 8, nn.ReLU()), conv(8, 4, 1)), SHAPE, [RELU]),
    "no bias": (lambda: nn.Sequential(conv(3, 8, bias=False), conv(8, 4, bias=False)), SHAPE, ["layer"]),
    "grouped": (lambda: nn.Sequential(conv(4, 8, groups=2), nn.ReLU(), conv(8, 4, groups=4)), (2, 4, 9, 9), [RELU]),
    "depthwise": (
        lambda: nn.Sequential(
            conv(3, 8), nn.ReLU(), conv(8, 8, groups=8), nn.ReLU(), conv(8, 16, groups=8), conv(16, 4)
        ),
        SHAPE,
        [RELU, RELU, "layer"],
    ),
    "dilated": (lambda: nn.Sequential(nn.Conv2d(3, 8, 3, dilation=2), conv(8, 4, 1)), SHAPE, ["layer"]),
    "strided, asymmetric": (
        lambda: nn.Sequential(nn.Conv2d(3, 8, (3, 1), (2, 1), (0, 2)), nn.ReLU(), nn.Conv2d(8, 4, 2, padding=(1, 0))),
        SHAPE,
        [RELU],
    ),
    "few channels, stride 2": (
        lambda: nn.Sequential(nn.Conv2d(3, 8, 6, 2, 2), nn.ReLU(), conv(8, 4, 1)),
        SHAPE,
        [RELU],
    ),
    "padding by name": (
        lambda: nn.Sequential(nn.Conv2d(3, 8, 3, padding="same"), nn.ReLU(), nn.Conv2d(8, 4, 1, padding="valid")),
        SHAPE,
        [RELU],
    ),
    "one dimension": (
        lambda: nn.Sequential(
            nn.Conv1d(3, 8, 3), nn.BatchNorm1d(8), nn.ReLU(), nn.Conv1d(8, 8, 3, groups=2), nn.Conv1d(8, 4, 1)
        ),
        (2, 3, 20),
        [RELU, "layer"],
    ),
    "three dimensions": (
        lambda: nn.Sequential(
            nn.Conv3d(3, 8, 3), nn.BatchNorm3d(8), nn.ReLU(), nn.Conv3d(8, 8, (1, 3, 3), (1, 2, 2)), nn.Conv3d(8, 4, 1)
        ),
        (2, 3, 6, 8, 8),
        ["layer+table", "layer"],
    ),
    "three dimensions, ReLU6": (
        lambda: nn.Sequential(nn.Conv3d(3, 8, 3), nn.ReLU6(), nn.Conv3d(8, 4, 1)),
        (2, 3, 6, 8, 8),
        ["layer+table"],
    ),
    "linear": (lambda: nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 4)), (6, 16), [RELU]),
    "linear over a sequence": (
        lambda: nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 4)),
        (2, 5, 16),
        [RELU],
    ),
    "linear, GELU": (
        lambda: nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 4)),
        (2, 5, 16),
        ["layer+table"],
    ),
    "linear, LeakyReLU": (
        lambda: nn.Sequential(nn.Linear(16, 32), nn.LeakyReLU(0.2), nn.Linear(32, 4)),
        (6, 16),
        ["layer+leaky_relu"],
    ),
    "called twice": (
        lambda: Wired(
            lambda s, x: s.c(s.b(s.b(s.a(x)))), a=conv(3, 8), b=nn.Sequential(conv(8, 8), nn.ReLU()), c=conv(8, 4)
        ),
        SHAPE,
        ["layer", RELU, RELU],
    ),
    "dropout": (
        lambda: nn.Sequential(conv(3, 8), nn.Dropout2d(), nn.Flatten(), nn.Dropout(), nn.Linear(8 * 12 * 14, 4)),
        SHAPE,
        ["layer", "Flatten"],
    ),
}


@pytest.mark.parametrize(("make", "shape", "kinds"), LAYERS.values(), ids=LAYERS)
def test_a_layer_and_what_follows_it_is_one_kernel(make: Any, shape: Any, kinds: list[str]) -> None:
    result = compare(Network(make, shape))

    assert result.kinds == [IN, *kinds, OUT]
    assert_faithful(result, share=0.35 if "layer+table" in kinds else 0.005)


def test_gelu_behind_a_linear_layer_is_a_post_op_where_a_table_is_too_coarse() -> None:
    narrow = nn.Linear(16, 32)
    nn.init.normal_(narrow.weight, std=0.05)

    result = compare(Network(lambda: nn.Sequential(narrow, nn.GELU(), nn.Linear(32, 4)), (6, 16)))

    assert result.kinds == [IN, "layer+gelu", OUT]
    assert_faithful(result)


def test_a_last_layer_with_a_relu_gives_float_from_its_kernel() -> None:
    result = compare(Network(lambda: nn.Sequential(conv(3, 8), conv_bn(8, 4, nn.ReLU())), SHAPE))

    assert result.kinds == [IN, "layer", "layer+relu+float"]
    assert_faithful(result)


FALLBACKS: dict[str, tuple[Callable[[], nn.Module], list[str]]] = {
    "padding of two kinds": (
        lambda: nn.Sequential(conv(3, 8), nn.Conv2d(8, 8, 2, padding="same"), conv(8, 4)),
        ["Conv2d"],
    ),
    "reflected": (lambda: nn.Sequential(conv(3, 8), conv(8, 8, padding_mode="reflect"), conv(8, 4)), ["Conv2d"]),
    "circular": (lambda: nn.Sequential(conv(3, 8), conv(8, 8, padding_mode="circular"), conv(8, 4)), ["Conv2d"]),
    "transposed": (lambda: nn.Sequential(conv(3, 8), nn.ConvTranspose2d(8, 8, 2, 2), conv(8, 4)), ["ConvTranspose2d"]),
    "group norm": (lambda: nn.Sequential(conv(3, 8), nn.GroupNorm(2, 8), conv(8, 4)), ["GroupNorm"]),
}


@pytest.mark.filterwarnings(
    "ignore:Using padding='same' with even kernel lengths:UserWarning"
)  # torch's, in float32 too
@pytest.mark.parametrize(("make", "kinds"), FALLBACKS.values(), ids=FALLBACKS)
def test_what_has_no_kernel_is_float_between_two_conversions(make: Any, kinds: list[str]) -> None:
    result = compare(Network(make, SHAPE))

    back = ["as_quantized", "dequantize"]
    assert result.kinds == [IN, "layer", *back, *kinds, "quantize_per_tensor", "as_bytes", OUT]
    assert_faithful(result)


QUANTIZED: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "layer norm": (lambda: nn.Sequential(conv(3, 8), nn.LayerNorm([8, 12, 14]), conv(8, 4)), "LayerNorm"),
    "instance norm": (
        lambda: nn.Sequential(conv(3, 8), nn.InstanceNorm2d(8, affine=True), conv(8, 4)),
        "InstanceNorm2d",
    ),
    "batch norm alone": (lambda: nn.Sequential(conv(3, 8), nn.ReLU(), nn.BatchNorm2d(8), conv(8, 4)), "BatchNorm2d"),
    "softmax": (lambda: nn.Sequential(conv(3, 8), nn.Softmax(1), conv(8, 4)), "Softmax"),
    "average pooling": (lambda: nn.Sequential(conv(3, 8), nn.AvgPool2d(2), conv(8, 4)), "AvgPool2d"),
    "product": (lambda: Wired(lambda s, x: s.b(s.a(x) * s.a(x + 1)), a=conv(3, 8), b=conv(8, 4)), "mul"),
}


@pytest.mark.parametrize(("make", "kind"), QUANTIZED.values(), ids=QUANTIZED)
def test_what_only_torch_has_a_kernel_for_runs_on_its_quantized_tensors(make: Any, kind: str) -> None:
    result = compare(Network(make, SHAPE))

    assert kind in result.kinds
    assert not {"dequantize", "quantize_per_tensor"} & set(result.kinds)
    assert_faithful(result, share=0.05)


def test_attention_is_float_between_quantized_layers() -> None:
    def attend(s: Any, x: torch.Tensor) -> Any:
        weight = torch.softmax(torch.matmul(s.q(x), s.k(x).transpose(1, 2)) / 4, -1)
        return s.o(torch.bmm(weight, s.v(x)))

    def make() -> nn.Module:
        return Wired(attend, **{name: nn.Linear(16, 16) for name in "qkvo"})

    result = compare(Network(make, (2, 5, 16)))

    assert result.kinds.count("layer") == 3
    assert result.kinds[-1] == "layer+float"
    assert_faithful(result)


def test_squeeze_and_excite() -> None:
    def excite(s: Any, x: torch.Tensor) -> Any:
        x = s.stem(x)
        return s.head(x * s.expand(s.squeeze(functional.adaptive_avg_pool2d(x, 1))))

    def make() -> nn.Module:
        squeeze, expand = nn.Sequential(conv(8, 4, 1), nn.ReLU()), nn.Sequential(conv(4, 8, 1), nn.Hardsigmoid())
        return Wired(excite, stem=conv_bn(3, 8, nn.ReLU()), squeeze=squeeze, expand=expand, head=conv(8, 4))

    result = compare(Network(make, SHAPE))

    assert [kind for kind in result.kinds if kind.startswith("layer")] == [RELU, RELU, "layer+table", OUT]
    assert_faithful(result, share=0.01)


def test_what_the_recipe_keeps_float_is_an_island() -> None:
    make = lambda: nn.Sequential(conv_bn(3, 8, nn.ReLU()), conv_bn(8, 8, nn.SiLU()), conv(8, 4))  # noqa: E731

    result = compare(Network(make, SHAPE), ignored_scope=("1",))

    back = ["as_quantized", "dequantize"]
    assert result.kinds == [IN, RELU, *back, "Conv2d", "SiLU", "quantize_per_tensor", "as_bytes", OUT]
    assert_faithful(result)


def test_a_functional_convolution_falls_back() -> None:
    def make() -> nn.Module:
        wired = Wired(lambda s, x: s.a(functional.conv2d(x, s.weight).relu()), a=conv(6, 4))
        wired.weight = nn.Parameter(torch.randn(6, 3, 3, 3) / 5)
        return wired

    result = compare(Network(make, SHAPE))

    assert "conv2d" in result.kinds
    assert result.kinds[-1] == OUT
    assert_faithful(result)
