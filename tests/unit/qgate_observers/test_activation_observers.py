"""Observers of activations against numpy: percentiles, exhaustive searches, and KL divergence bin by bin."""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from qgate.errors import QuantizationError
from qgate.quantization.observers import ActivationObserver, HistogramObserver
from qgate_observers.activations import EntropyObserver, MseObserver, PercentileObserver

if TYPE_CHECKING:
    from collections.abc import Callable

Array = NDArray[np.float64]
COUNTING = [PercentileObserver, MseObserver, EntropyObserver, HistogramObserver]

DISTRIBUTIONS: dict[str, Callable[[np.random.Generator], Array]] = {
    "normal": lambda rng: rng.normal(0, 1, 5_000),
    "long tail": lambda rng: rng.standard_t(2, 5_000),
    "rectified": lambda rng: np.maximum(rng.standard_t(3, 5_000), 0),
    "an outlier": lambda rng: np.append(rng.normal(0, 1, 5_000), 200.0),
    "negative": lambda rng: -rng.exponential(1, 5_000),
    "SiLU": lambda rng: (x := rng.normal(0, 2, 5_000)) / (1 + np.exp(-x)),
}


def watched(observer: ActivationObserver, *batches: Array) -> ActivationObserver:
    for batch in batches:
        observer(torch.from_numpy(batch))
    return observer


def bounds(observer: ActivationObserver) -> tuple[float, float]:
    low, high = observer.bounds()
    return float(low), float(high)


def quantized(values: Array, low: float, high: float, levels: int) -> Array:
    scale = (high - low) / levels
    zero_point = np.round(-low / scale)
    return (np.clip(np.round(values / scale) + zero_point, 0, levels) - zero_point) * scale


def error(values: Array, low: float, high: float, levels: int = 255) -> float:
    return float(np.mean(np.abs(quantized(values, low, high, levels) - values) ** 2))


@pytest.mark.parametrize("percentile", [99, 99.9, 99.99])
@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_percentile_leaves_out_as_many_values_at_each_end_as_it_says(name: str, percentile: float) -> None:
    values = DISTRIBUTIONS[name](np.random.default_rng(1))
    expected = len(values) * (100 - percentile) / 100

    low, high = bounds(watched(PercentileObserver(percentile=percentile), *np.array_split(values, 4)))

    bin_width = np.ptp(np.append(values, 0)) / 1024  # a histogram that has grown is used by a quarter at least
    assert np.sum(values < low - bin_width) <= expected + 1
    assert np.sum(values <= low + bin_width) >= expected - 1
    assert np.sum(values > high + bin_width) <= expected + 1
    assert np.sum(values >= high - bin_width) >= expected - 1


def test_percentile_is_numpys_where_values_are_dense() -> None:
    values = np.random.default_rng(1).gamma(2, 1, 100_000) - 1

    found = bounds(watched(PercentileObserver(percentile=99.5), *np.array_split(values, 7)))

    assert found == pytest.approx(np.percentile(values, [0.5, 99.5]), abs=np.ptp(values) / 1024)


def test_percentile_weighs_tensors_by_their_size() -> None:
    """Of the large one only a sample is counted; as many values as that would be half of all."""
    few, many = np.full(16_000, 10.0), np.random.default_rng(0).uniform(0, 1, 1_600_000)

    observer = watched(PercentileObserver(percentile=98), few, many)

    assert bounds(observer)[1] == pytest.approx(np.percentile(np.append(few, many), 98), abs=10 / 1024)


def test_a_percentile_of_100_covers_everything() -> None:
    values = DISTRIBUTIONS["long tail"](np.random.default_rng(1))

    assert bounds(watched(PercentileObserver(percentile=100), values)) == pytest.approx((values.min(), values.max()))


@pytest.mark.parametrize("levels", [255, 127])
@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_mse_errs_no_more_than_an_exhaustive_search(name: str, levels: int) -> None:
    values = DISTRIBUTIONS[name](np.random.default_rng(1))
    fractions = np.linspace(1 / 24, 1, 24)
    best = min(
        error(values, low * values.min(), high * values.max(), levels)
        for low in (fractions if values.min() < 0 else [0.0])
        for high in (fractions if values.max() > 0 else [0.0])
    )

    observer = watched(MseObserver(quant_max=levels), *np.array_split(values, 4))

    assert error(values, *bounds(observer), levels) <= 1.02 * best


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_mse_errs_no_more_than_searching_one_bound_after_the_other(name: str) -> None:
    values = DISTRIBUTIONS[name](np.random.default_rng(1))

    jointly, in_turn = (error(values, *bounds(watched(kind(), values))) for kind in (MseObserver, HistogramObserver))

    assert jointly <= 1.005 * in_turn


def test_mse_is_reckoned_behind_what_reads_the_values() -> None:
    """Of what SiLU reads, values below -5 all become nearly zero: they need no levels."""
    values = np.random.default_rng(0).uniform(-20, 4, 5_000)
    observer = MseObserver()
    observer.read_through = torch.nn.functional.silu

    low, high = bounds(watched(observer, values))

    assert -12 < low < -3
    assert high == pytest.approx(4, abs=0.1)


def divergence(values: Array, low: float, high: float, levels: int, edges: Array) -> float:
    """KL divergence of the histogram with outliers at its ends from the one that levels can tell, as in plain words."""
    counts = np.histogram(values, edges)[0].astype(float)
    middles = (edges[:-1] + edges[1:]) / 2
    held = [index for index in np.flatnonzero(counts) if low <= middles[index] <= high]
    whole = {index: counts[index] for index in held}
    whole[held[0]] += counts[middles < low].sum()
    whole[held[-1]] += counts[middles > high].sum()
    scale = (high - low) / levels
    level = {index: round(middles[index] / scale) for index in held}
    sizes, mass = Counter(level.values()), Counter[int]()
    for index in held:
        mass[level[index]] += counts[index]
    told = {index: mass[level[index]] / sizes[level[index]] for index in held}
    all_whole, all_told = sum(whole.values()), sum(told.values())
    return sum(p / all_whole * math.log(p / all_whole / (told[index] / all_told)) for index, p in whole.items())


@pytest.mark.parametrize("levels", [255, 181])
@pytest.mark.parametrize("name", ["normal", "long tail", "negative", "SiLU"])
def test_entropy_diverges_no_more_than_an_exhaustive_search(name: str, levels: int) -> None:
    values = DISTRIBUTIONS[name](np.random.default_rng(1))
    least, greatest = min(values.min(), 0.0), max(values.max(), 0.0)
    edges = np.linspace(least, greatest, 1025)
    fractions = np.linspace(0.1, 1, 10)
    best = min(
        divergence(values, low * least, high * greatest, levels, edges)
        for low in (fractions if least < 0 else [1.0])
        for high in (fractions if greatest > 0 else [1.0])
        if high * greatest - low * least > (levels + 1) * (edges[1] - edges[0])
    )

    observer = watched(EntropyObserver(bins=1024, quant_max=levels), values)

    assert divergence(values, *bounds(observer), levels, edges) <= 1.05 * best + 1e-4


def test_entropy_clips_what_is_rare_and_far_out() -> None:
    values = np.append(np.random.default_rng(0).normal(0, 1, 100_000), [12.0, 15.0])

    low, high = bounds(watched(EntropyObserver(), values))

    assert -5 < low < -2.5
    assert 2.5 < high < 5


def test_entropy_does_not_mind_how_many_zeros_there_are() -> None:
    values = np.abs(np.random.default_rng(0).normal(0, 1, 5_000))

    few, many = (watched(EntropyObserver(), np.append(values, np.zeros(count))) for count in (10, 5_000))

    assert bounds(few)[1] == pytest.approx(bounds(many)[1], rel=0.1)


def came(name: str, observer: type[ActivationObserver]) -> tuple[Array, list[tuple[float, float]]]:
    """Give values, and the bounds that are found where they come at once and where they come in order, bit by bit."""
    values = DISTRIBUTIONS[name](np.random.default_rng(2))
    return values, [bounds(watched(observer(), *np.array_split(np.sort(values), parts))) for parts in (1, 50)]


@pytest.mark.parametrize("name", ["normal", "rectified", "negative"])
def test_how_the_values_came_moves_percentiles_by_a_bin(name: str) -> None:
    values, (together, apart) = came(name, PercentileObserver)

    assert apart == pytest.approx(together, abs=np.ptp(np.append(values, 0)) / 1024)


@pytest.mark.parametrize("observer", [MseObserver, HistogramObserver])
@pytest.mark.parametrize("name", ["normal", "rectified", "negative"])
def test_how_the_values_came_hardly_matters_to_the_error(name: str, observer: type[ActivationObserver]) -> None:
    values, (together, apart) = came(name, observer)

    assert error(values, *apart) == pytest.approx(error(values, *together), rel=0.05)


@pytest.mark.parametrize("name", ["normal", "negative"])
def test_how_the_values_came_hardly_matters_to_the_divergence(name: str) -> None:
    values, (together, apart) = came(name, EntropyObserver)

    edges = np.linspace(min(values.min(), 0), max(values.max(), 0), 4097)
    assert divergence(values, *apart, 255, edges) <= 1.25 * divergence(values, *together, 255, edges) + 1e-3


def held_bytes(observer: torch.nn.Module) -> int:
    """Count the bytes of all tensors that an observer holds, and those of the histogram in it."""
    parts: list[Any] = [*vars(observer).values(), *observer.buffers()]
    parts += [item for part in parts if hasattr(part, "__dict__") for item in vars(part).values()]
    return sum(part.element_size() * part.numel() for part in parts if isinstance(part, torch.Tensor))


@pytest.mark.parametrize("observer", COUNTING)
def test_many_samples_take_no_more_memory_than_few(observer: type[ActivationObserver]) -> None:
    rng = np.random.default_rng(0)
    watching = watched(observer(), rng.normal(size=64))
    few = held_bytes(watching)

    watched(watching, *(rng.normal(0, 1 + index, 64) for index in range(1000)))

    assert held_bytes(watching) == few > 0


@pytest.mark.parametrize("observer", COUNTING)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite_is_an_error(observer: type[ActivationObserver], bad: float) -> None:
    watching = watched(observer(), np.array([1.0, bad]), np.array([0.5, 2.0]))

    with pytest.raises(QuantizationError, match=f'observer "{observer.name}" saw no value, or one that is not finite'):
        watching.calculate_qparams()


@pytest.mark.parametrize("observer", COUNTING)
@pytest.mark.parametrize("values", [[0.0] * 9, [3.0] * 9, [-3.0] * 9, [0.0] * 9 + [1e-30], [1e30, -1e30], [2.0]])
def test_few_different_values_keep_their_order_of_magnitude(
    observer: type[ActivationObserver], values: list[float]
) -> None:
    scale, zero_point = watched(observer(), np.array(values)).calculate_qparams()

    assert 0 <= int(zero_point) <= 255
    assert 0 < float(scale) <= max(np.ptp([*values, 0.0]) / 255 * 1.01, 1e-6)


@pytest.mark.parametrize(
    ("observer", "options", "message"),
    [
        (PercentileObserver, {"percentile": 0.0}, "percentile = 0.0; expected more than 50 and at most 100"),
        (PercentileObserver, {"percentile": 101.0}, "percentile = 101.0; expected more than 50 and at most 100"),
        (PercentileObserver, {"percentile": math.nan}, "percentile = nan; expected"),
        (MseObserver, {"bins": 3000}, "bins = 3000; expected a power of two, such as 2048"),
        (HistogramObserver, {"bins": 1}, "bins = 1; expected a power of two, such as 2"),
        (EntropyObserver, {"bins": 256}, "bins = 256; expected at least 1024"),
    ],
)
def test_options_that_make_no_sense(observer: type[ActivationObserver], options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        observer(**options)
