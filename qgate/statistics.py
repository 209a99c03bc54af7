"""How sure a figure is; numpy only."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["RESAMPLES", "median_ratio_interval", "resample_weights"]

RESAMPLES = 1000


def median_ratio_interval(
    numerator: NDArray[np.float64], denominator: NDArray[np.float64], confidence: float, seed: int
) -> tuple[float, float]:
    """Give the percentile-bootstrap interval of the median of paired ratios.

    Both arrays have shape (rounds,); a round's two values were measured next to each other, so what slowed both
    cancels in their ratio. Source: Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapter 13.
    """
    ratios = numerator / denominator
    draws = np.random.default_rng(seed).integers(0, len(ratios), (RESAMPLES, len(ratios)))
    low, high = np.quantile(np.median(ratios[draws], axis=1), [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def resample_weights(num_samples: int, seed: int) -> NDArray[np.float64]:
    """Draw bootstrap resamples as weights, shape (RESAMPLES, num_samples): how often each sample is in each."""
    rng = np.random.default_rng(seed)
    return rng.multinomial(num_samples, np.full(num_samples, 1 / num_samples), RESAMPLES).astype(np.float64)
