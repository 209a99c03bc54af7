"""Which of two attempts is better, by what the data shows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from qgate.config.model import Place, QuantizationConfig
from qgate.engine.tuning.search import Attempt, pareto_front
from qgate.engine.tuning.trials import Figure, Trial
from qgate.resampled import encode

RECIPE = QuantizationConfig(Place(Path("qgate.toml"), 1))
SAMPLES = 64
NOISE = np.random.default_rng(0).normal(0, 0.01, 1000)


def figure(name: str, value: float, own_noise: float, seed: int) -> Figure:
    own = np.random.default_rng(seed).normal(0, own_noise, 1000)
    return Figure(name, value, encode(value + NOISE + own), SAMPLES, higher_is_better=name == "map")


def trial(accuracy: float, speedup: float = 2.0, size: int = 100, own_noise: float = 0.0, seed: int = 1) -> Trial:
    """Give a trial whose resamples share a noise of 0.01 with all others and have one of their own."""
    return Trial(
        RECIPE,
        accuracy=figure("map", accuracy, own_noise, seed),
        bytes=size,
        size_reduction=0.7,
        speedup=speedup,
        speedup_interval=(speedup - 0.05, speedup + 0.05),
    )


FAILED = Trial(RECIPE, failure="not measured")


def test_a_gain_beyond_the_noise_that_two_recipes_do_not_share_is_shown() -> None:
    good, bad = trial(0.90, own_noise=0.001), trial(0.89, own_noise=0.001, seed=2)

    assert good.more_accurate(bad, 0.95)
    assert not bad.more_accurate(good, 0.95)


def test_a_gain_within_that_noise_is_not() -> None:
    good, bad = trial(0.90, own_noise=0.01), trial(0.89, own_noise=0.01, seed=2)

    assert not good.more_accurate(bad, 0.95)
    assert not bad.more_accurate(good, 0.95)


def test_a_gain_that_is_shown_but_matters_to_nobody_is_none() -> None:
    good, bad = trial(0.9004, own_noise=0.0001), trial(0.9, own_noise=0.0001, seed=2)

    assert good.more_accurate(bad, 0.95)
    assert not good.more_accurate(bad, 0.95, 0.0005)


def test_where_less_is_better_less_is_more_accurate() -> None:
    less, more = (replace(trial(0.9), accuracy=figure("invented", value, 0.001, 1)) for value in (0.1, 0.2))

    assert less.more_accurate(more, 0.95)
    assert not more.more_accurate(less, 0.95)


def test_where_raw_outputs_were_compared_their_distance_decides() -> None:
    near, far = (replace(trial(1 - value), distance=figure("distance", value, 0.001, 1)) for value in (0.8, 0.9))

    assert near.more_accurate(far, 0.95)
    assert not replace(far, accuracy=figure("map", 0.99, 0.0, 1)).more_accurate(near, 0.95)
    assert pareto_front([Attempt("near", near), Attempt("far", far)])[0].label == "near"


def test_a_recipe_that_fails_is_less_accurate_than_any_other() -> None:
    assert trial(0.1).more_accurate(FAILED, 0.95)
    assert not FAILED.more_accurate(trial(0.1), 0.95)


@pytest.mark.parametrize(("speedup", "faster"), [(2.2, True), (2.08, False), (1.0, False)])
def test_faster_is_what_is_faster_beyond_both_errors(speedup: float, faster: bool) -> None:
    assert trial(0.9, speedup).faster(trial(0.9, 2.0)) is faster


def test_the_front_holds_what_nothing_else_beats_in_every_respect() -> None:
    attempts = {
        "accurate": trial(0.95, 1.0, 100),
        "fast": trial(0.90, 3.0, 100),
        "small": trial(0.80, 1.0, 50),
        "beaten": trial(0.90, 2.0, 100),
        "the same": trial(0.95, 1.0, 100),
        "failed": FAILED,
    }

    front = pareto_front([Attempt(label, tried) for label, tried in attempts.items()])

    assert [attempt.label for attempt in front] == ["accurate", "fast", "small"]
