"""`per_channel_mse` against an exhaustive search in numpy, channel by channel."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from qgate.errors import QuantizationError
from qgate.quantization.observers import PerChannelMinMaxObserver, WeightObserver
from qgate_observers.weights import PerChannelMseObserver

Array = NDArray[np.float64]


def weight() -> Array:
    """Channels whose magnitudes differ a thousandfold, some of them with a weight far out."""
    values = np.random.default_rng(3).normal(0, 1, (6, 40, 3, 3)) * np.logspace(-3, 0, 6)[:, None, None, None]
    values[::2, 0, 0, 0] *= 30
    return values


def scales(observer: WeightObserver, values: Array) -> Array:
    observer(torch.from_numpy(values))
    return observer.calculate_qparams()[0].numpy().astype(np.float64)


def error(values: Array, scale: float) -> float:
    return float(np.mean((np.clip(np.round(values / scale), -128, 127) * scale - values) ** 2))


def test_each_channel_errs_no_more_than_an_exhaustive_search() -> None:
    found = scales(PerChannelMseObserver(), weight())

    for channel, scale in zip(weight(), found, strict=True):
        best = min(error(channel, fraction * np.abs(channel).max() / 127.5) for fraction in np.linspace(0.1, 1, 1000))
        assert error(channel, scale) <= 1.02 * best


def test_weights_that_nothing_is_gained_by_clipping_are_covered_whole() -> None:
    even = np.linspace(-1, 1, 4 * 1000).reshape(4, 1000)  # at 8 bits

    found = scales(PerChannelMseObserver(), even)

    assert found == pytest.approx(np.abs(even).max(1) / 127.5, rel=0.02)


@pytest.mark.parametrize("per_transposed", [False, True])
def test_channels_lie_along_the_axis_that_the_layer_says(per_transposed: bool) -> None:
    values = weight().swapaxes(0, 1) if per_transposed else weight()

    found = scales(PerChannelMseObserver(ch_axis=int(per_transposed)), values)

    assert found == pytest.approx(scales(PerChannelMseObserver(), weight()))


def test_a_narrow_range_is_kept_and_searched_within() -> None:
    """The two greatest steps of one sign leave room for a product with 181 in 16 bits."""
    observer = PerChannelMseObserver()
    observer.narrow()

    found = scales(observer, weight())

    for channel, scale in zip(weight(), found, strict=True):
        steps = np.round(channel / scale).ravel()
        assert max(np.sort(steps)[-2:].sum(), np.sort(-steps)[-2:].sum()) * 181 <= 2**15
    plain = PerChannelMinMaxObserver()
    plain.narrow()
    pairs = zip(weight(), found, scales(plain, weight()), strict=True)
    assert all(error(channel, mse) <= error(channel, minmax) for channel, mse, minmax in pairs)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_weight_that_is_not_finite_is_an_error(bad: float) -> None:
    values = weight()
    values[1, 0, 0, 0] = bad

    with pytest.raises(QuantizationError, match="not finite"):
        scales(PerChannelMseObserver(), values)


def test_a_channel_of_zeros_has_a_scale_that_can_be_divided_by() -> None:
    values = weight()
    values[2] = 0

    assert (scales(PerChannelMseObserver(), values) > 0).all()
