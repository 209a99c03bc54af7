"""Observers against plain numpy: what range they choose, and the scale and zero point that come of it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from qgate.errors import QuantizationError
from qgate.quantization.observers import (
    ActivationObserver,
    HistogramObserver,
    MinMaxObserver,
    MovingAverageObserver,
    PerChannelMinMaxObserver,
    PerTensorMinMaxObserver,
)

Array = NDArray[np.float64]


def batches(count: int = 5) -> list[Array]:
    rng = np.random.default_rng(0)
    return [rng.normal(0.4, 1 + index, (2, 3, 16, 16)) for index in range(count)]


def watch(observer: ActivationObserver, values: list[Array]) -> tuple[float, int]:
    for batch in values:
        observer(torch.from_numpy(batch))
    scale, zero_point = observer.calculate_qparams()
    return float(scale), int(zero_point)


def affine(low: float, high: float, levels: int = 255) -> tuple[float, int]:
    """Map [low, high], widened to hold zero, to 0..levels."""
    low, high = min(low, 0.0), max(high, 0.0)
    scale = (high - low) / levels
    return scale, round(-low / scale)


def squared_error(values: Array, scale: float, zero_point: int, levels: int = 255) -> float:
    steps = np.clip(np.round(values / scale) + zero_point, 0, levels)
    return float(np.mean(((steps - zero_point) * scale - values) ** 2))


def test_min_max_covers_everything_it_saw() -> None:
    values = batches()

    scale, zero_point = watch(MinMaxObserver(), values)

    assert (scale, zero_point) == (
        pytest.approx(affine(np.min(values), np.max(values))[0], rel=1e-5),
        affine(np.min(values), np.max(values))[1],
    )


@pytest.mark.parametrize("sign", [1, -1])
def test_zero_is_always_exact(sign: int) -> None:
    scale, zero_point = watch(MinMaxObserver(), [sign * np.array([5.0, 9.0])])

    assert scale == pytest.approx(9 / 255, rel=1e-5)
    assert zero_point == (0 if sign > 0 else 255)


@pytest.mark.parametrize("constant", [0.01, 0.3])
def test_moving_average_follows_each_batch(constant: float) -> None:
    values = batches()
    low, high = np.min(values[0]), np.max(values[0])
    for batch in values[1:]:
        low += constant * (np.min(batch) - low)
        high += constant * (np.max(batch) - high)

    scale, zero_point = watch(MovingAverageObserver(averaging_constant=constant), values)

    assert (scale, zero_point) == (pytest.approx(affine(low, high)[0], rel=1e-5), affine(low, high)[1])


DISTRIBUTIONS = {
    "normal": lambda rng: rng.normal(0, 1, 20_000),
    "long tail": lambda rng: rng.standard_t(2, 20_000),
    "rectified": lambda rng: np.maximum(rng.standard_t(3, 20_000), 0),
    "an outlier": lambda rng: np.append(rng.normal(0, 1, 20_000), 200.0),
    "negative": lambda rng: -rng.exponential(1, 20_000),
}


@pytest.mark.parametrize("levels", [255, 127])
@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_histogram_errs_no_more_than_an_exhaustive_search(name: str, levels: int) -> None:
    values = DISTRIBUTIONS[name](np.random.default_rng(1))
    fractions = np.linspace(1 / 48, 1, 48)
    best = min(
        squared_error(values, *affine(low * values.min(), high * values.max(), levels), levels)
        for low in (fractions if values.min() < 0 else [1.0])
        for high in (fractions if values.max() > 0 else [1.0])
    )

    chosen = watch(HistogramObserver(quant_max=levels), np.array_split(values, 4))

    assert squared_error(values, *chosen, levels) <= 1.1 * best


def test_histogram_does_not_depend_on_how_the_values_came() -> None:
    values = np.random.default_rng(2).standard_t(3, 8000)

    together = watch(HistogramObserver(), [values])
    apart = watch(HistogramObserver(), np.array_split(np.sort(values), 20))

    assert squared_error(values, *apart) == pytest.approx(squared_error(values, *together), rel=0.05)


@pytest.mark.parametrize("observer", [MinMaxObserver, MovingAverageObserver, HistogramObserver])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite_is_an_error(observer: type[ActivationObserver], bad: float) -> None:
    with pytest.raises(QuantizationError, match=f'observer "{observer.name}" saw no value, or one that is not finite'):
        watch(observer(), [np.array([1.0, bad]), np.array([0.5, 2.0])])


@pytest.mark.parametrize("observer", [MinMaxObserver, MovingAverageObserver, HistogramObserver])
def test_having_seen_nothing_is_an_error(observer: type[ActivationObserver]) -> None:
    with pytest.raises(QuantizationError, match="saw no value"):
        watch(observer(), [np.empty((0, 3))])


@pytest.mark.parametrize("observer", [MinMaxObserver, MovingAverageObserver, HistogramObserver])
def test_zeros_alone_give_a_scale_that_can_be_divided_by(observer: type[ActivationObserver]) -> None:
    scale, zero_point = watch(observer(), [np.zeros(10)])

    assert scale > 0
    assert zero_point == 0


def weight() -> Array:
    """Channels whose magnitudes differ a thousandfold."""
    return np.random.default_rng(3).normal(0, 1, (6, 4, 3, 3)) * np.logspace(-3, 0, 6)[:, None, None, None]


def test_each_channel_of_a_weight_has_a_step_of_its_own() -> None:
    observer = PerChannelMinMaxObserver()
    observer(torch.from_numpy(weight()))

    scale, zero_point = observer.calculate_qparams()

    # 255 steps from -128 to 127, symmetric about zero
    assert scale.numpy() == pytest.approx(np.abs(weight()).max((1, 2, 3)) / 127.5, rel=1e-5)
    assert not zero_point.any()


def test_the_channels_of_a_transposed_weight_lie_along_its_second_axis() -> None:
    observer = PerChannelMinMaxObserver(ch_axis=1)
    observer(torch.from_numpy(weight()))

    assert observer.calculate_qparams()[0].numpy() == pytest.approx(np.abs(weight()).max((0, 2, 3)) / 127.5, rel=1e-5)


def test_one_step_for_a_whole_weight() -> None:
    observer = PerTensorMinMaxObserver()
    observer(torch.from_numpy(weight()))

    assert float(observer.calculate_qparams()[0]) == pytest.approx(np.abs(weight()).max() / 127.5, rel=1e-5)
