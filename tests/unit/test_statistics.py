from __future__ import annotations

from statistics import NormalDist
from typing import TYPE_CHECKING

import numpy as np
import pytest

from qgate import statistics
from qgate.statistics import (
    bootstrap_interval,
    judge_interval,
    median_ratio_interval,
    resamples,
    samples_needed,
    standard_interval,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

NAN, INF = float("nan"), float("inf")
MANY = 10**6  # so many samples that Student's t is the normal distribution
RANKS = np.arange(1000.0)  # a resampled statistic whose values are their own ranks


def normal_resamples(mean: float, deviation: float) -> NDArray[np.float64]:
    """Give the resamples of an ideal bootstrap of a mean: the quantiles of a normal distribution."""
    ideal = NormalDist(mean, deviation)
    return np.array([ideal.inv_cdf((index + 0.5) / 20_000) for index in range(20_000)])


@pytest.mark.parametrize(
    ("samples", "confidence", "student"),  # the quantiles are those of the usual tables
    [(10, 0.95, 2.2622), (20, 0.95, 2.0930), (30, 0.80, 1.3114), (30, 0.99, 2.7564), (121, 0.90, 1.6577)],
)
def test_of_a_mean_it_is_students_interval(samples: int, confidence: float, student: float) -> None:
    values = np.random.default_rng(0).normal(3, 2, samples)
    mean, error = values.mean(), values.std(ddof=1) / np.sqrt(samples)

    # The bootstrap's own deviation is that of the sample as if it were the population.
    interval = bootstrap_interval(normal_resamples(mean, values.std() / np.sqrt(samples)), mean, samples, confidence)

    assert interval == pytest.approx((mean - student * error, mean + student * error), abs=0.003 * student * error)


@pytest.mark.parametrize("bias", [-0.5, 0.5])
def test_biased_resamples_widen_it_where_int8_would_pass(bias: float) -> None:
    interval = bootstrap_interval(normal_resamples(1 + bias, 1), 1, MANY, 0.95)

    assert interval == pytest.approx((1 - 1.95996 + bias, 1 + 1.95996 + abs(bias)), abs=0.01)


@pytest.mark.parametrize("bias", [-3.0, 3.0])
def test_what_was_measured_is_in_it_whatever_the_bias(bias: float) -> None:
    low, high = bootstrap_interval(normal_resamples(1 + bias, 1), 1, MANY, 0.95) or (INF, INF)

    assert low <= 1 <= high


def test_it_covers_the_mean_of_a_skewed_population_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(1)
    covered = 0
    for seed in range(200):
        values = rng.gamma(4, 0.25, 40)  # of mean 1
        means = np.concatenate([rows @ values / 40 for rows in resamples(40, seed)])
        low, high = bootstrap_interval(means, values.mean(), 40, 0.95) or (INF, INF)
        covered += low <= 1 <= high

    assert 183 <= covered <= 199  # 190 expected, with a standard deviation of 3


def test_bounds_are_values_that_were_seen_outwards_of_the_quantile() -> None:
    # 2.5% of the way from rank 0 to 999 is 24.975, 97.5% is 974.025
    assert bootstrap_interval(RANKS, 499.5, MANY, 0.95) == (24, 975)


def test_a_resample_without_a_value_counts_against_either_side() -> None:
    shuffled = np.random.default_rng(0).permutation(RANKS)
    some = np.where((shuffled >= 500) & (shuffled < 510), NAN, shuffled)
    many = np.where((shuffled >= 500) & (shuffled < 530), NAN, shuffled)

    assert bootstrap_interval(some, 499.5, MANY, 0.95) == (14, 985)
    assert bootstrap_interval(many, 499.5, MANY, 0.95) is None


def test_a_relative_drop_from_nothing_in_many_resamples_has_no_interval() -> None:
    assert bootstrap_interval(np.where(RANKS > 900, INF, RANKS), 499.5, MANY, 0.95) is None
    assert bootstrap_interval(np.where(RANKS > 990, INF, RANKS), 499.5, MANY, 0.95) == (24, 975)


@pytest.mark.parametrize("measured", [None, NAN, INF])
def test_what_was_not_measured_has_no_interval(measured: float | None) -> None:
    assert bootstrap_interval(RANKS, measured, 100, 0.95) is None


def test_few_samples_have_no_interval() -> None:
    assert bootstrap_interval(RANKS, 499.5, 5, 0.95) is None
    assert bootstrap_interval(RANKS, 499.5, 6, 0.95) is not None


def test_a_confidence_that_the_resamples_cannot_show_has_no_interval() -> None:
    # Student's 99% of 10 samples are 3.25 deviations, times sqrt(10/9): a tail of 0.3 of 1,000 resamples
    assert bootstrap_interval(RANKS, 499.5, 10, 0.99) is None
    assert bootstrap_interval(RANKS, 499.5, 100, 0.99) is not None


def test_two_equal_arms_have_an_interval_without_width() -> None:
    assert bootstrap_interval(np.zeros(1000), 0.0, 12, 0.95) == (0, 0)


def test_a_resample_draws_as_many_samples_as_there_are_with_replacement() -> None:
    (rows,) = resamples(50, seed=0)

    assert rows.shape == (1000, 50)
    assert (rows.sum(axis=1) == 50).all()
    assert rows.mean(axis=0) == pytest.approx(np.ones(50), abs=0.15)  # a deviation of 0.03
    assert rows.var() == pytest.approx(1 - 1 / 50, rel=0.02)  # of Binomial(50, 1/50)
    assert len(np.unique(rows, axis=0)) == 1000


def test_a_seed_gives_the_same_resamples_in_parts_of_any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    (whole,) = resamples(30, seed=3)
    monkeypatch.setattr(statistics, "_CHUNK", 30 * 7)

    parts = list(resamples(30, seed=3))

    assert {len(part) for part in parts} == {7, 1000 % 7}
    assert (np.concatenate(parts) == whole).all()
    assert not (np.concatenate(list(resamples(30, seed=4))) == whole).all()


@pytest.mark.parametrize(
    ("limit", "floor", "status"),
    [
        (3.1, False, "passed"),
        (3.0, False, "passed"),
        (2.9, False, "inconclusive"),
        (1.0, False, "inconclusive"),  # the least of the interval would just keep it
        (0.9, False, "failed"),
        (0.9, True, "passed"),
        (1.0, True, "passed"),
        (1.1, True, "inconclusive"),
        (3.0, True, "inconclusive"),
        (3.1, True, "failed"),
    ],
)
def test_an_interval_passes_or_fails_as_a_whole(limit: float, floor: bool, status: str) -> None:
    assert judge_interval((1.0, 3.0), limit, floor=floor) == status


def test_a_bound_that_meets_the_limit_up_to_rounding_keeps_it() -> None:
    assert 0.1 + 0.2 > 0.3
    assert judge_interval((0.0, 0.1 + 0.2), 0.3, floor=False) == "passed"
    assert judge_interval((0.3, 1.0), 0.1 + 0.2, floor=True) == "passed"
    assert judge_interval((0.0, 0.0), 0.0, floor=False) == "passed"


@pytest.mark.parametrize("limit", [0.013, 0.007], ids=["would pass", "would fail"])
def test_at_the_number_of_samples_needed_half_of_the_experiments_settle(limit: float) -> None:
    drop, deviation, rng = 0.01, 0.05, np.random.default_rng(0)
    error = deviation / np.sqrt(100)

    needed = samples_needed(100, drop, (drop - 1.96 * error, drop + 1.96 * error), limit)

    assert needed is not None
    at_needed = deviation / np.sqrt(needed)
    means = rng.normal(drop, at_needed, 2000)
    statuses = [
        judge_interval((mean - 1.96 * at_needed, mean + 1.96 * at_needed), limit, floor=False) for mean in means
    ]
    assert statuses.count("passed" if limit > drop else "failed") == pytest.approx(1000, abs=80)


def test_samples_needed_looks_at_the_side_of_the_limit() -> None:
    # twice the distance away on one side, ten times on the other
    assert samples_needed(100, 0.0, (-0.10, 0.02), 0.01) == 400
    assert samples_needed(100, 0.0, (-0.10, 0.02), -0.01) == pytest.approx(10_000, abs=1)


@pytest.mark.parametrize("limit", [0.0, 1e-6])
def test_a_limit_at_the_measured_value_is_settled_by_no_number(limit: float) -> None:
    assert samples_needed(100, 0.0, (-0.1, 0.1), limit) is None


def test_the_interval_covers_the_true_ratio_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for seed in range(200):
        load = rng.pareto(1.5, 41) + 1
        numerator = 1.7 * load * rng.normal(1, 0.05, 41)
        low, high = median_ratio_interval(numerator, load * rng.normal(1, 0.05, 41), 0.9, seed)
        covered += low <= 1.7 <= high

    # 180 expected, with a standard deviation of 4.2; percentile intervals of medians are a little generous
    assert 168 <= covered <= 196


def test_it_contains_the_median_and_narrows_with_rounds() -> None:
    rng = np.random.default_rng(1)
    denominator = rng.normal(1, 0.05, 400)

    widths = []
    for rounds in (25, 400):
        low, high = median_ratio_interval(np.full(rounds, 2.0), denominator[:rounds], 0.95, 0)
        assert low <= np.median(2.0 / denominator[:rounds]) <= high
        widths.append(high - low)
    assert widths[0] / widths[1] == pytest.approx(4, rel=0.5)


def test_a_greater_confidence_gives_a_wider_interval() -> None:
    rng = np.random.default_rng(2)
    numerator, denominator = rng.normal(2, 0.2, 50), np.ones(50)

    narrow, wide = (median_ratio_interval(numerator, denominator, level, 0) for level in (0.8, 0.99))

    assert wide[0] < narrow[0] < narrow[1] < wide[1]


def test_the_same_seed_gives_the_same_interval() -> None:
    numerator, denominator = np.random.default_rng(3).random((2, 30)) + 1

    assert median_ratio_interval(numerator, denominator, 0.95, 5) == median_ratio_interval(
        numerator, denominator, 0.95, 5
    )


def test_a_standard_interval_reaches_tails_that_hold_no_resample() -> None:
    resampled = np.random.default_rng(4).normal(0.5, 0.1, 1000)

    low, high = standard_interval(resampled, 0.5, 17, 0.999)

    assert bootstrap_interval(resampled, 0.5, 17, 0.999) is None
    assert (0.5 - low, high - 0.5) == pytest.approx((0.1 * np.sqrt(17 / 16) * 4.015,) * 2, rel=0.05)  # t of a table


def test_a_standard_interval_needs_samples_and_values() -> None:
    assert standard_interval(np.ones(10), 1.0, 1, 0.95) is None
    assert standard_interval(np.array([1.0, np.nan]), 1.0, 10, 0.95) is None
