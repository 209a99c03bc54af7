from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from qgate.quantization.fused.tables import Scale, activation_table, byte_table

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

ACTIVATIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "ReLU": functional.relu,
    "SiLU": functional.silu,
    "Hardswish": functional.hardswish,
    "LeakyReLU": nn.LeakyReLU(0.1),
    "GELU": functional.gelu,
    "GELU of tanh": nn.GELU("tanh"),
    "Mish": functional.mish,
    "ELU": functional.elu,
    "Sigmoid": torch.sigmoid,
    "Tanh": torch.tanh,
    "Hardsigmoid": functional.hardsigmoid,
    "ReLU6": functional.relu6,
    "Softplus": functional.softplus,
}
# Of the activation's result: the greatest value, and levels, 181 where the range is reduced.
RANGES = [(greatest, levels) for greatest in (0.3, 1.0, 3.0, 6.0, 11.0, 40.0) for levels in (255, 181)]


def scale_of(activation: Callable[[torch.Tensor], torch.Tensor], reach: float, greatest: float, levels: int) -> Scale:
    """Give the scale that an observer gives results of inputs from `-reach` to `reach`, cut off at `greatest`."""
    values = activation(torch.linspace(-reach, reach, 10001))
    low, high = min(float(values.min()), 0.0), min(float(values.max()), greatest)
    step = (high - low) / levels
    return Scale(step, round(-low / step))


def quantized(values: NDArray[np.float64], scale: Scale) -> NDArray[np.float64]:
    return np.clip(np.rint(values / scale.step) + scale.zero_point, 0, 255)


def float64(activation: Callable[[torch.Tensor], torch.Tensor], x: NDArray[np.float64]) -> NDArray[np.float64]:
    result: NDArray[np.float64] = activation(torch.from_numpy(x.copy())).numpy()
    return result


CASES = [(name, *one) for name, one in itertools.product(ACTIVATIONS, RANGES)]


@pytest.mark.parametrize(("name", "greatest", "levels"), CASES)
def test_a_table_is_within_a_step_of_the_activation_quantized_once(name: str, greatest: float, levels: int) -> None:
    activation = ACTIVATIONS[name]
    target = scale_of(activation, 40.0, greatest, levels)
    found = activation_table(activation, target)
    if found is None:
        return
    source, table = found
    # Denser than the table's own grid, at no multiple of its spacing, and far beyond both ends.
    x = np.concatenate([np.linspace(-3, 3, 200_003) * greatest, np.array([-1e6, -100.0, 100.0, 1e6])])

    given = table.numpy()[quantized(x, source).astype(np.int64)].astype(np.float64)

    assert np.abs(given - quantized(float64(activation, x), target)).max() <= 1


TRAINED: dict[str, tuple[str, float, int]] = {
    **{name: (name, 6.0, 255) for name in ("SiLU", "Hardswish", "LeakyReLU", "GELU", "ELU", "Hardsigmoid")},
    "Mish": ("Mish", 11.0, 255),
    "Sigmoid of a reduced range": ("Sigmoid", 6.0, 181),
    "Tanh of a reduced range": ("Tanh", 6.0, 181),
}


@pytest.mark.parametrize(("name", "reach", "levels"), TRAINED.values(), ids=TRAINED)
def test_there_is_a_table_over_the_ranges_of_trained_networks(name: str, reach: float, levels: int) -> None:
    assert activation_table(ACTIVATIONS[name], scale_of(ACTIVATIONS[name], reach, reach, levels)) is not None


IMPOSSIBLE: dict[str, tuple[Callable[[torch.Tensor], torch.Tensor], Scale]] = {
    "a pole": (lambda x: 1 / x, Scale(0.02, 128)),
    "an exponential of a wide range": (torch.exp, Scale(1000.0, 0)),
    "a long tail over fine steps": (functional.mish, Scale(1e-3, 255)),
    "without end": (torch.sin, Scale(0.01, 128)),
    "nowhere defined": (lambda x: x * torch.nan, Scale(0.01, 0)),
}


@pytest.mark.parametrize(("function", "target"), IMPOSSIBLE.values(), ids=IMPOSSIBLE)
def test_there_is_no_table_where_none_is_within_a_step(function: Any, target: Scale) -> None:
    found = activation_table(function, target)

    if found is not None:  # then it is right
        source, table = found
        x = np.linspace(-50, 50, 100_001)
        given = table.numpy()[quantized(x, source).astype(np.int64)].astype(np.float64)
        assert np.abs(given - quantized(float64(function, x), target)).max() <= 1


@pytest.mark.parametrize("name", ["SiLU", "Hardswish", "GELU", "Mish"])
def test_the_tails_are_not_biased(name: str) -> None:
    # A step too many wherever nothing happens moves the mean of a whole layer.
    activation = ACTIVATIONS[name]
    target = scale_of(activation, 11.0, 11.0, 255)
    found = activation_table(activation, target)
    assert found is not None
    source, table = found
    x = np.linspace(-40, -12, 10_001)

    given = table.numpy()[quantized(x, source).astype(np.int64)].astype(np.float64)

    assert (given == quantized(float64(activation, x), target)).all()


@pytest.mark.parametrize("name", ["SiLU", "LeakyReLU", "Sigmoid", "Tanh"])
def test_errors_within_a_table_are_balanced(name: str) -> None:
    activation = ACTIVATIONS[name]
    target = scale_of(activation, 6.0, 6.0, 181)
    found = activation_table(activation, target)
    assert found is not None
    source, table = found
    x = np.random.default_rng(0).normal(0, 2, 100_000)

    given = table.numpy()[quantized(x, source).astype(np.int64)].astype(np.float64)

    assert abs(np.mean(given - quantized(float64(activation, x), target))) < 0.1


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_a_table_of_bytes_is_exact(name: str) -> None:
    source, target = Scale(0.047, 119), Scale(0.031, 37)
    values = (np.arange(256) - 119) * 0.047

    table = byte_table(ACTIVATIONS[name], source, target)

    result = float64(ACTIVATIONS[name], values) / 0.031
    clear = np.abs(result - np.floor(result) - 0.5) > 1e-4  # where float32 and float64 must agree
    expected = np.clip(np.rint(result) + 37, 0, 255)
    assert (table.numpy()[clear] == expected[clear]).all()
    assert clear.sum() > 240


def test_a_change_of_scale_is_exact() -> None:
    table = byte_table(torch.Tensor.clone, Scale(0.5, 10), Scale(0.25, 0))

    assert table.tolist() == [min(max(2 * (byte - 10), 0), 255) for byte in range(256)]
