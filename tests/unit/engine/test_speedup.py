from __future__ import annotations

import numpy as np
import pytest

from qgate.engine.speedup import LOOKS, Goal, estimate

GOAL = Goal((1.3,), 0.95, seed=0)


def rounds(truth: float, num_rounds: int, seed: int, *, order_effect: float = 1.0) -> np.ndarray:
    """Give seconds as `estimate` takes them.

    What slows a round slows all of it, up to a hundredfold; single runs have heavy tails. The half in which the
    baseline ran first takes `order_effect` as long.
    """
    rng = np.random.default_rng(seed)
    load = rng.pareto(1.0, (num_rounds, 1)) + 1
    noise = np.exp(0.02 * rng.standard_t(4, (num_rounds, 4)))
    return load * noise * [truth * order_effect, order_effect, 1, truth]


def test_the_median_of_paired_ratios_sees_through_the_load() -> None:
    found = estimate(rounds(2.0, 96, seed=0), GOAL)

    assert found.value == pytest.approx(2.0, rel=0.02)
    assert found.interval[0] < 2.0 < found.interval[1]
    assert found.interval == pytest.approx((2.0, 2.0), rel=0.04)


def test_equal_work_is_the_control_and_widens_the_interval() -> None:
    fair, unfair = (estimate(rounds(2.0, 96, seed=0, order_effect=effect), GOAL) for effect in (1.0, 1.1))

    assert fair.control_interval[0] < 1 < fair.control_interval[1]
    assert fair.noise_floor < 0.01
    assert unfair.control == pytest.approx(1.1, rel=0.01)
    assert unfair.noise_floor == pytest.approx(0.1, abs=0.01)
    assert unfair.interval[0] < 2.0 / 1.09
    assert unfair.interval[1] > 2.0 * 1.09


def test_an_allowance_widens_the_interval_to_either_side() -> None:
    plain, allowed = (estimate(rounds(2.0, 96, seed=0), GOAL, allowance) for allowance in (0.0, 0.25))

    assert allowed.interval == pytest.approx((plain.interval[0] / 1.25, plain.interval[1] * 1.25))


def test_the_noise_floor_is_the_same_on_either_side_of_one() -> None:
    seconds = rounds(2.0, 96, seed=0, order_effect=1.1)

    mirrored = estimate(seconds[:, [2, 3, 0, 1]][:, [1, 0, 3, 2]], GOAL)

    assert mirrored.control == pytest.approx(1 / 1.1, rel=0.01)
    assert mirrored.noise_floor == pytest.approx(0.1, abs=0.01)


def test_looking_until_it_is_settled_seldom_misleads_where_the_limit_is_the_truth() -> None:
    """At the limit, whatever is settled is wrong: in at most 5%, 1 of 25. `benchmarks/timing_looks.py` counts it."""

    def is_settled(seed: int) -> bool:
        seconds = rounds(1.3, LOOKS[2], seed)
        return any(GOAL.is_reached(estimate(seconds[:look], GOAL).interval) for look in LOOKS[:3])

    assert sum(is_settled(seed) for seed in range(25)) <= 1


@pytest.mark.parametrize(
    ("floors", "interval", "reached"),
    [
        ((1.3,), (1.31, 1.6), True),
        ((1.3,), (1.1, 1.29), True),
        ((1.3,), (1.29, 1.31), False),
        ((1.1, 1.3), (1.15, 1.25), True),
        ((1.1, 1.3), (1.2, 1.31), False),
        ((), (1.20, 1.22), True),
        ((), (1.20, 1.25), False),
    ],
)
def test_a_goal_is_reached_where_no_verdict_can_change(
    floors: tuple[float, ...], interval: tuple[float, float], reached: bool
) -> None:
    assert Goal(floors).is_reached(interval) is reached
