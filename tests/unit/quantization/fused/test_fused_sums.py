"""Sums of bytes: in a convolution's kernel, or by themselves. A kernel writes its sum over one of the summands."""

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
RELU, SUM, RELU_OF_SUM = "layer+relu", "layer+sum", "layer+sum+relu"


def wired(wiring: Callable[..., Any], **modules: Callable[[], nn.Module]) -> Network:
    return Network(lambda: Wired(wiring, **{name: make() for name, make in modules.items()}), SHAPE)


def stem() -> nn.Module:
    return conv_bn(3, 8, nn.ReLU())


def block() -> nn.Module:
    return conv_bn(8, 8)


def head() -> nn.Module:
    return conv(8, 4, 1)


def basic(s: Any, x: torch.Tensor) -> Any:
    x = s.stem(x)
    for first, second in ((s.a, s.b), (s.c, s.d)):
        y = second(torch.relu(first(x)))
        y += x
        x = torch.relu(y)
    return s.head(x)


def downsampled(s: Any, x: torch.Tensor) -> Any:
    x = s.stem(x)
    return s.head(torch.relu(s.b(torch.relu(s.a(x))) + s.c(x)))


def test_a_residual_block_adds_in_its_last_convolution() -> None:
    result = compare(wired(basic, stem=stem, a=block, b=block, c=block, d=block, head=head))

    assert result.kinds == [IN, RELU, RELU, RELU_OF_SUM, RELU, RELU_OF_SUM, OUT]
    assert_faithful(result)


def test_a_shortcut_that_does_nothing_is_a_summand() -> None:
    def wiring(s: Any, x: torch.Tensor) -> Any:
        x = s.stem(x)
        return s.head(torch.relu(s.b(torch.relu(s.a(x))) + s.shortcut(x)))

    result = compare(wired(wiring, stem=stem, a=block, b=block, shortcut=nn.Identity, head=head))

    assert result.kinds == [IN, RELU, RELU, RELU_OF_SUM, OUT]
    assert_faithful(result)


def test_of_two_convolutions_the_later_one_adds() -> None:
    result = compare(wired(downsampled, stem=stem, a=block, b=block, c=block, head=head))

    assert result.kinds == [IN, RELU, RELU, "layer", RELU_OF_SUM, OUT]
    assert_faithful(result)


def test_what_is_read_again_after_the_sum_is_not_overwritten() -> None:
    def wiring(s: Any, x: torch.Tensor) -> Any:
        x = s.stem(x)
        total = torch.relu(s.a(x) + x)
        return s.head(total), s.head(x), s.other(total)

    result = compare(wired(wiring, stem=stem, a=block, head=head, other=head))

    assert result.kinds == [IN, RELU, "clone", RELU_OF_SUM, OUT, OUT, OUT]
    assert_faithful(result)


def test_what_the_adding_convolution_reads_itself_is_not_overwritten() -> None:
    def wiring(s: Any, x: torch.Tensor) -> Any:
        x = s.stem(x)
        return s.head(s.a(x) + x)

    result = compare(wired(wiring, stem=stem, a=block, head=head))

    assert result.kinds == [IN, RELU, "clone", SUM, OUT]
    assert_faithful(result)


def test_a_sum_behind_an_activation_adds_bytes() -> None:
    def wiring(s: Any, x: torch.Tensor) -> Any:
        x = s.stem(x)
        return s.head(x + s.b(s.a(x)))

    silu = lambda: conv_bn(8, 8, nn.SiLU())  # noqa: E731
    result = compare(wired(wiring, stem=lambda: conv_bn(3, 8, nn.SiLU()), a=silu, b=silu, head=head))

    assert result.kinds[-2:] == ["ByteAdd", OUT]
    assert_faithful(result, share=0.1)


OTHER_SHAPES: dict[str, Callable[[Any, torch.Tensor], Any]] = {
    "one column and row": lambda s, y: s.a(y) + y.mean((2, 3), keepdim=True),
    "one channel": lambda s, y: s.a(y) + s.narrow(y),
    "pooled": lambda s, y: s.a(y) + s.b(functional.adaptive_avg_pool2d(y, 1)),
    "the convolution is the lesser": lambda s, y: s.b(functional.adaptive_avg_pool2d(y, 1)) + y,
    "ReLU": lambda s, y: functional.relu(s.narrow(y) + s.a(y)),
}


@pytest.mark.parametrize("function", OTHER_SHAPES.values(), ids=OTHER_SHAPES)
def test_a_summand_of_another_shape_is_no_part_of_a_convolution(function: Any) -> None:
    narrow = lambda: conv(8, 1, 1)  # noqa: E731
    result = compare(
        wired(lambda s, x: s.head(function(s, s.stem(x))), stem=stem, a=block, b=block, narrow=narrow, head=head)
    )

    assert result.kinds[-2:] == ["ByteAdd", OUT]
    assert SUM not in result.kinds
    assert_faithful(result)


BYTES: dict[str, tuple[Callable[[Any, torch.Tensor], Any], str]] = {
    "itself": (lambda s, y: y + y, "ByteTable"),
    "pooled": (lambda s, y: functional.max_pool2d(y, 3, 1, 1) + y, "ByteAdd"),
    "three": (lambda s, y: s.a(y) + s.b(y) + y, "ByteAdd"),
    "ReLU": (lambda s, y: functional.relu(functional.max_pool2d(y, 3, 1, 1) + y), "ByteAdd"),
    "halves": (lambda s, y: torch.cat((y[:, :4] + functional.max_pool2d(y[:, 4:], 3, 1, 1), y[:, 4:]), 1), "ByteAdd"),
}


@pytest.mark.parametrize(("function", "kind"), BYTES.values(), ids=BYTES)
def test_other_sums_are_of_bytes(function: Any, kind: str) -> None:
    result = compare(wired(lambda s, x: s.head(function(s, s.stem(x))), stem=stem, a=block, b=block, head=head))

    assert kind in result.kinds
    assert "dequantize" not in result.kinds
    assert_faithful(result)


def test_a_slice_may_be_a_summand_and_is_not_overwritten() -> None:
    def wiring(s: Any, x: torch.Tensor) -> Any:
        halves = s.stem(x).chunk(2, 1)
        left, right = halves[0], halves[1]
        return s.head(torch.cat((left, right + s.a(right), right), 1))

    result = compare(wired(wiring, stem=stem, a=lambda: conv(4, 4), head=lambda: conv(12, 4, 1)))

    assert "clone" in result.kinds
    assert SUM in result.kinds
    assert_faithful(result)


FACTORS: dict[str, Callable[[Any, torch.Tensor], Any]] = {
    "alpha": lambda s, y: torch.add(s.a(y), y, alpha=2),
    "difference": lambda s, y: s.a(y) - y,
    "method": lambda s, y: s.a(y).add(y),
    "in place": lambda s, y: s.a(y).add_(y).relu_(),
}


@pytest.mark.parametrize("function", FACTORS.values(), ids=FACTORS)
def test_sums_that_no_kernel_has_are_right_in_float(function: Any) -> None:
    network = wired(lambda s, x: s.head(function(s, s.stem(x))), stem=stem, a=block, head=head)

    result = compare(network)

    assert_faithful(result)
    with torch.no_grad():
        expected = network.module()(*network.inputs(3))
    assert float((result.given - expected).square().mean().sqrt()) < 0.04 * float(expected.std())


def test_what_a_module_overwrites_is_read_overwritten() -> None:
    def wiring(s: Any, x: torch.Tensor) -> Any:
        x = s.a(x)
        y = functional.relu(x, inplace=True)
        return s.head(s.b(y) + s.c(x))  # x is y

    network = wired(wiring, a=lambda: conv(3, 8), b=block, c=block, head=head)

    result = compare(network)

    assert_faithful(result)
    with torch.no_grad():
        expected = network.module()(*network.inputs(3))
    assert float((result.given - expected).square().mean().sqrt()) < 0.04 * float(expected.std())
