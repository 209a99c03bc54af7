"""How sure a figure is, and what that makes of a limit; numpy only."""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Interval = tuple[float, float]

__all__ = [
    "RESAMPLES",
    "bootstrap_interval",
    "judge_interval",
    "median_ratio_interval",
    "provable_drop",
    "resamples",
    "rows_at_a_time",
    "samples_needed",
    "standard_interval",
]

RESAMPLES = 1000

_BLOCK_RESAMPLES = 4000  # intervals of timing reach far into the tails
_CHUNK = 1 << 20  # weights held at a time: 8 MB, however many samples there are, up to a million
_NORMAL = NormalDist()


def resamples(num_samples: int, seed: int) -> Iterator[Floats]:
    """Draw bootstrap resamples as weights: RESAMPLES rows in all, in arrays of shape (rows, num_samples).

    A weight says how often a sample is in a resample. One seed gives the same rows, whoever asks: that pairs the arms.
    """
    rng = np.random.default_rng(seed)
    step = rows_at_a_time(num_samples)
    for start in range(0, RESAMPLES, step):
        rows = min(step, RESAMPLES - start)
        yield rng.multinomial(num_samples, np.full(num_samples, 1 / num_samples), rows).astype(np.float64)


def provable_drop(num_samples: int) -> float:
    """Give a `max_drop` that so many samples can settle where int8 loses little: 0.25 / sqrt(n), in whole hundredths.

    A drop of mAP has an interval of about 0.19 / sqrt(n) on either side (`docs/statistics.md`).
    """
    return math.ceil(25 / math.sqrt(num_samples)) / 100


def rows_at_a_time(num_samples: int) -> int:
    """Give how many rows of weights, (rows, num_samples), should be in memory at a time."""
    return max(1, _CHUNK // num_samples)


def bootstrap_interval(
    resampled: Floats, measured: float | None, num_samples: int, confidence: float
) -> Interval | None:
    """Give the interval of a loss that was `measured`, from its value in each resample, `resampled` (resamples,).

    A loss is greater where int8 is worse. Both ends are expanded percentiles, but the upper one, by which int8 passes,
    is that of the percentile interval or of its reflection at `measured`, the basic interval, whichever is greater.
    They differ where resamples are biased, as those of an average precision are: a sample that is drawn twice agrees
    with itself. Percentiles expect a new sample to be biased alike, reflection takes the bias off. The percentile alone
    lets too many bad models pass, the greater end on both sides is too wide, and the bias-corrected (BCa) interval
    covers least: `benchmarks/coverage.py`. Expanded, because percentiles are narrow by the factor sqrt((n - 1) / n),
    and by that of the normal and Student's t quantile. Source: Hesterberg, What Teachers Should Know About the
    Bootstrap (2015), section 4.

    A resample in which the loss is undefined may lie on either side. None where there are too many of them, where
    nothing was measured, or where samples are so few that a tail holds not one resample: fewer than six at 95%.
    """
    if num_samples <= 1 or measured is None or not math.isfinite(measured):
        return None
    reach = math.sqrt(num_samples / (num_samples - 1)) * _student_quantile((1 + confidence) / 2, num_samples - 1)
    outside = _NORMAL.cdf(-reach)
    if outside * len(resampled) < 1:
        return None
    undefined = np.isnan(resampled)
    low = float(np.quantile(np.where(undefined, -np.inf, resampled), outside, method="lower"))
    high = float(np.quantile(np.where(undefined, np.inf, resampled), 1 - outside, method="higher"))
    interval = min(low, measured), max(high, 2 * measured - low)
    return interval if np.isfinite(interval).all() else None


def standard_interval(resampled: Floats, measured: float, num_samples: int, confidence: float) -> Interval | None:
    """Give the bootstrap's standard interval: `measured` and Student's t times the standard deviation of `resampled`.

    For tails so small that too few resamples lie in them, as where many comparisons share a confidence. None where
    there are fewer than two samples, or a resample is undefined. Source: Hesterberg (2015), as above, section 4.
    """
    if num_samples <= 1 or not np.isfinite(resampled).all():
        return None
    error = math.sqrt(num_samples / (num_samples - 1)) * float(np.std(resampled))
    reach = _student_quantile((1 + confidence) / 2, num_samples - 1) * error
    return measured - reach, measured + reach


def judge_interval(interval: Interval, limit: float, *, floor: bool) -> Literal["passed", "failed", "inconclusive"]:
    """Judge by non-inferiority: passed where the whole interval keeps the limit, failed where all of it misses it.

    `floor` says that values must be at least `limit`, else at most. A bound that meets the limit up to the rounding
    of float64 keeps it.
    """
    low, high = interval
    worst, best, limit = (-low, -high, -limit) if floor else (high, low, limit)
    if _at_most(worst, limit):
        return "passed"
    return "inconclusive" if _at_most(best, limit) else "failed"


def samples_needed(num_samples: int, measured: float, interval: Interval, limit: float) -> int | None:
    """Estimate how many samples would settle a limit inside `interval`, were `measured` to stay as it is.

    Intervals shrink with the root of the number of samples. None where no number would: `measured` is at the limit.
    """
    towards = interval[1] - measured if limit > measured else measured - interval[0]
    distance = abs(limit - measured)
    if not towards > 0 or not distance > 1e-3 * towards:  # a million times the samples is no advice
        return None
    return math.ceil(num_samples * (towards / distance) ** 2)


def _at_most(value: float, limit: float) -> bool:
    return value <= limit or math.isclose(value, limit, rel_tol=1e-9, abs_tol=1e-12)


def _student_quantile(probability: float, degrees: float) -> float:
    """Give the quantile of Student's t, by its expansion around the normal one: 0.02% off at 9 degrees.

    Source: Abramowitz and Stegun, Handbook of Mathematical Functions, 26.7.5.
    """
    z = _NORMAL.inv_cdf(probability)
    first = (z**3 + z) / 4
    second = (5 * z**5 + 16 * z**3 + 3 * z) / 96
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return z + first / degrees + second / degrees**2 + third / degrees**3


def median_ratio_interval(numerator: Floats, denominator: Floats, confidence: float, seed: int) -> Interval:
    """Give the block-bootstrap interval of the median of paired ratios.

    Both arrays have shape (rounds,), in the order of measuring; a round's two values were measured next to each other,
    so what slowed both cancels in their ratio. What moved several ratios alike does not: whole blocks of neighbours
    are drawn, as long as the cube root of the number of rounds. Percentiles are expanded, on a scale of logarithms, as
    those of `bootstrap_interval` are, counting blocks. Sources: Politis and Romano, A circular block-resampling
    procedure for stationary data (1992); Hall, Horowitz and Jing, On blocking rules for the bootstrap (1995).
    """
    logarithms = np.log(numerator / denominator)
    num_blocks = len(logarithms) / _block_length(len(logarithms))
    median = np.median(logarithms)
    medians = np.median(_block_resamples(logarithms, seed), axis=1)
    tail = (1 - confidence) / 2
    reach = _student_quantile(1 - tail, num_blocks - 1) / _NORMAL.inv_cdf(1 - tail)
    reach *= math.sqrt(num_blocks / (num_blocks - 1))
    low, high = np.exp(median + reach * (np.quantile(medians, [tail, 1 - tail]) - median))
    return float(low), float(high)


def _block_length(num_rounds: int) -> int:
    return round(math.pow(num_rounds, 1 / 3))


def _block_resamples(values: Floats, seed: int) -> Floats:
    """Draw circular block resamples, shape (_BLOCK_RESAMPLES, len(values)); the end is followed by the beginning."""
    length = _block_length(len(values))
    starts = np.random.default_rng(seed).integers(0, len(values), (_BLOCK_RESAMPLES, -(-len(values) // length)))
    indices = (starts[:, :, np.newaxis] + np.arange(length)) % len(values)
    drawn: Floats = values[indices.reshape(_BLOCK_RESAMPLES, -1)[:, : len(values)]]
    return drawn
