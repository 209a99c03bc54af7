"""What rounds of timing say about the speedup, and how sure that is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from qgate.statistics import judge_interval, median_ratio_interval

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from qgate.results import Interval

__all__ = ["LOOKS", "MIN_ROUNDS", "Estimate", "Goal", "estimate"]

# Intervals are looked at when so many rounds are there, or when the time is up: at most eight times.
LOOKS = tuple(12 * 2**index for index in range(8))
MIN_ROUNDS = LOOKS[0]
_TARGET_WIDTH = 0.02  # from bound to bound: finer than a speed limit is ever set


@dataclass(frozen=True)
class Goal:
    """What timing must tell: whether the speedup is at least each of `floors`, or its value where there are none."""

    floors: Sequence[float] = ()
    confidence: float = 0.95
    seed: int = 0

    def is_reached(self, interval: Interval) -> bool:
        """Say whether more rounds would change no verdict, or, without floors, would tell little."""
        low, high = interval
        if not self.floors:
            return high <= (1 + _TARGET_WIDTH) * low
        return all(judge_interval(interval, floor, floor=True) != "inconclusive" for floor in self.floors)


@dataclass(frozen=True)
class Estimate:
    """The speedup with its interval, and the control: the ratio of equal work, which differs from 1 by noise alone."""

    value: float
    interval: Interval
    control: float
    control_interval: Interval

    @property
    def noise_floor(self) -> float:
        """Say how far from 1, as a share, two equal things were seen."""
        return max(self.control, 1 / self.control) - 1


def estimate(rounds: NDArray[np.float64], goal: Goal, allowance: float = 0.0) -> Estimate:
    """Estimate the speedup from seconds, shape (rounds, 4).

    Columns are the two halves of a round: baseline and candidate of the half in which the baseline ran first, candidate
    and baseline of the half in which the candidate did. The speedup compares baseline with candidate, the control one
    half with the other: the same work, and as many measurements.

    Whoever looks at a growing sample until it says something is misled more often than the confidence admits. So each
    of the looks has an equal part of the error (Bonferroni), and the intervals of all looks hold together; that needs
    no assumption on how looks depend on each other. Source: Jennison and Turnbull, Interim analyses: the repeated
    confidence interval approach (1989).

    The bootstrap sees what varies from round to round, not what is wrong with all of them. Taking the control for a
    bound of the latter, the interval is widened by the noise floor on either side, which holds at the worst of
    such errors. Source: Armstrong and Kolesar, Simple and honest confidence intervals (2020), section 2. `allowance`
    is a share by which something else may have moved all ratios alike; it widens the interval too.
    """
    baseline, candidate = rounds[:, [0, 3]].sum(axis=1), rounds[:, [1, 2]].sum(axis=1)
    ahead, behind = rounds[:, [0, 1]].sum(axis=1), rounds[:, [2, 3]].sum(axis=1)
    confidence = 1 - (1 - goal.confidence) / len(LOOKS)
    found = Estimate(
        value=float(np.median(baseline / candidate)),
        interval=median_ratio_interval(baseline, candidate, confidence, goal.seed),
        control=float(np.median(ahead / behind)),
        control_interval=median_ratio_interval(ahead, behind, confidence, goal.seed),
    )
    low, high = found.interval
    widened = (1 + found.noise_floor) * (1 + allowance)
    return Estimate(found.value, (low / widened, high * widened), found.control, found.control_interval)
