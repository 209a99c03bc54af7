from __future__ import annotations

import numpy as np
import pytest

from qgate.statistics import median_ratio_interval


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
