from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from fused_networks import SHAPE, Wired, assert_faithful, compare, conv
from small_networks import Network
from torch import nn
from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Callable

MODULES: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "none": (nn.Identity, "layer"),
    "ReLU": (nn.ReLU, "layer+relu"),
    "ReLU6": (nn.ReLU6, "layer+hardtanh"),
    "Hardtanh": (lambda: nn.Hardtanh(-2.0, 2.0), "layer+hardtanh"),
    "SiLU": (nn.SiLU, "layer+table"),
    "Hardswish": (nn.Hardswish, "layer+table"),
    "LeakyReLU": (lambda: nn.LeakyReLU(0.1), "layer+table"),
    "ELU": (nn.ELU, "layer+table"),
    "GELU": (nn.GELU, "layer+table"),
    "GELU of tanh": (lambda: nn.GELU("tanh"), "layer+table"),
    "Mish": (nn.Mish, "layer+table"),
    "Sigmoid": (nn.Sigmoid, "layer+table"),
    "Tanh": (nn.Tanh, "layer+table"),
    "Hardsigmoid": (nn.Hardsigmoid, "layer+table"),
    "Softplus": (nn.Softplus, "layer+table"),
    "SELU": (nn.SELU, "layer+table"),
}
FUNCTIONS: dict[str, tuple[Callable[[torch.Tensor], torch.Tensor], str]] = {
    "functional.relu": (functional.relu, "layer+relu"),
    "functional.relu in place": (lambda x: functional.relu(x, inplace=True), "layer+relu"),
    "torch.relu": (torch.relu, "layer+relu"),
    "x.relu()": (lambda x: x.relu(), "layer+relu"),
    "x.relu_()": (lambda x: x.relu_(), "layer+relu"),
    "functional.relu6": (functional.relu6, "layer+hardtanh"),
    "functional.hardtanh": (lambda x: functional.hardtanh(x, -1.0, 2.0), "layer+hardtanh"),
    "functional.silu": (functional.silu, "layer+table"),
    "functional.hardswish": (functional.hardswish, "layer+table"),
    "functional.leaky_relu": (lambda x: functional.leaky_relu(x, 0.2), "layer+table"),
    "functional.gelu": (functional.gelu, "layer+table"),
    "functional.mish": (functional.mish, "layer+table"),
    "torch.sigmoid": (torch.sigmoid, "layer+table"),
    "x.sigmoid()": (lambda x: x.sigmoid(), "layer+table"),
    "torch.tanh": (torch.tanh, "layer+table"),
}


def wide(layer: nn.Conv2d) -> nn.Conv2d:
    """Let results spread as far as a trained network's do: over narrow ranges smooth functions have no table."""
    nn.init.normal_(layer.weight, std=1.5)
    return layer


def network(activation: Callable[[], Any]) -> Network:
    return Network(lambda: nn.Sequential(wide(conv(3, 8)), activation(), conv(8, 4, 1)), SHAPE)


def share(kind: str) -> float:
    return 0.35 if kind.endswith("table") else 0.005


@pytest.mark.parametrize(("make", "kind"), MODULES.values(), ids=MODULES)
def test_an_activation_behind_a_convolution_is_a_part_of_its_kernel(make: Any, kind: str) -> None:
    result = compare(network(make))

    assert result.kinds == ["QuantizeInput", kind, "layer+float"]
    assert_faithful(result, share=share(kind))


@pytest.mark.parametrize(("function", "kind"), FUNCTIONS.values(), ids=FUNCTIONS)
def test_an_activation_may_be_a_function_or_a_method(function: Any, kind: str) -> None:
    wired = Network(lambda: Wired(lambda s, x: s.b(function(s.a(x))), a=wide(conv(3, 8)), b=conv(8, 4, 1)), SHAPE)

    result = compare(wired)

    assert result.kinds == ["QuantizeInput", kind, "layer+float"]
    assert_faithful(result, share=share(kind))


@pytest.mark.parametrize(("activation", "kind"), [(nn.SiLU, "layer+swish"), (nn.Hardswish, "layer+hardswish")])
def test_a_function_too_steep_for_a_table_is_a_post_op_where_there_is_one(activation: Any, kind: str) -> None:
    result = compare(Network(lambda: nn.Sequential(conv(3, 8), activation(), conv(8, 4, 1)), SHAPE))

    assert result.kinds == ["QuantizeInput", kind, "layer+float"]
    assert_faithful(result)


@pytest.mark.parametrize("activation", [nn.Mish, nn.GELU])
def test_a_function_too_steep_for_a_table_is_reckoned_in_float_where_there_is_no_post_op(activation: Any) -> None:
    narrow = conv(3, 8)
    nn.init.normal_(narrow.weight, std=0.02)
    result = compare(Network(lambda: nn.Sequential(narrow, activation(), conv(8, 4, 1)), SHAPE))

    assert result.kinds == [
        *("QuantizeInput", "layer+float", activation.__name__, "quantize_per_tensor", "as_bytes", "layer+float")
    ]
    assert_faithful(result)


LONELY: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "SiLU": functional.silu,
    "Sigmoid": torch.sigmoid,
    "clamp": lambda x: x.clamp(-1, 2),
    "number added": lambda x: x + 1,
    "number added, ReLU6": lambda x: functional.relu6(1 + x) / 6,
    "scaled": lambda x: (x - 0.3) * 2.0,
}


@pytest.mark.parametrize("function", LONELY.values(), ids=LONELY)
def test_what_changes_single_values_elsewhere_is_a_byte_table(function: Any) -> None:
    wired = Network(
        lambda: Wired(lambda s, x: s.b(function(nn.functional.max_pool2d(s.a(x), 2))), a=conv(3, 8), b=conv(8, 4, 1)),
        SHAPE,
    )

    result = compare(wired)

    inner = result.kinds[result.kinds.index("MaxPool") + 1 : -1]
    assert inner
    assert set(inner) == {"ByteTable"}
    assert_faithful(result)


def test_a_number_behind_a_convolution_is_no_summand_of_its_kernel() -> None:
    wired = Network(lambda: Wired(lambda s, x: s.b(functional.relu(s.a(x) + 1)), a=conv(3, 8), b=conv(8, 4, 1)), SHAPE)

    result = compare(wired)

    assert result.kinds == ["QuantizeInput", "layer", "ByteTable", "layer+float"]
    assert_faithful(result)


def test_sigmoid_behind_a_layer_leaves_the_range_of_what_the_layer_reads_alone() -> None:
    # torch fixes the range of sigmoid's pattern to [0, 1]: inputs of +-4 would be cut off.
    wired = Network(lambda: nn.Sequential(wide(conv(3, 8)), nn.Sigmoid(), conv(8, 4, 1)), SHAPE)

    result = compare(wired)

    with torch.no_grad():
        expected = wired.module()(*wired.inputs(3))
    error = (result.given - expected).square().mean().sqrt() / expected.std()
    assert error < 0.04


def test_prelu_stays_float() -> None:
    result = compare(Network(lambda: nn.Sequential(conv(3, 8), nn.PReLU(8), conv(8, 4, 1)), SHAPE))

    assert "prelu" in result.kinds
    assert_faithful(result)
