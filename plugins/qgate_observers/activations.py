"""Which values of an activation int8 should cover: three ways to read it off a histogram."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import torch

from qgate.quantization.observers import CountingObserver

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["EntropyObserver", "MseObserver", "PercentileObserver"]

_HALF, _ALL = 50.0, 100.0
_BINS_PER_LEVEL = 4


class PercentileObserver(CountingObserver):
    """Covers what lies between a low and a high percentile: at 99.99, all but a 10,000th of the values at each end.

    Good where a few values are far out. Not for values that are nearly all zero: then those that are not are the tail.
    """

    name: ClassVar[str] = "percentile"
    alternatives: ClassVar[tuple[dict[str, Any], ...]] = ({"percentile": 99.9}, {"percentile": 99.999})

    def __init__(self, *, percentile: float = 99.99, **spec: int) -> None:
        super().__init__(**spec)
        if not _HALF < percentile <= _ALL:
            raise ValueError(f"percentile = {percentile}; expected more than 50 and at most 100, such as 99.99")
        self.percentile = percentile

    def search(self, low: float, high: float) -> tuple[float, float]:  # noqa: ARG002  # the histogram knows them
        """Give the percentiles."""
        above = self.percentile / _ALL
        return self.histogram.quantile(1.0 - above), self.histogram.quantile(above)


class MseObserver(CountingObserver):
    """Clips where the mean squared error of quantizing is least, both bounds searched together and to a thousandth.

    Where values crowd, as SiLU's do near their least one, it matters where just there the steps fall.
    """

    name: ClassVar[str] = "mse"

    def search(self, low: float, high: float) -> tuple[float, float]:
        """Search the plane of both bounds."""
        return least_of(self.errors, low, high)


class EntropyObserver(CountingObserver):
    """Clips where the quantized values' distribution tells most of the values' own: least KL divergence.

    As TensorRT calibrates (Migacz, 8-bit Inference with TensorRT, 2017), and ONNX Runtime after it, but with two bounds
    and the levels that the range really has.
    """

    name: ClassVar[str] = "entropy"

    def __init__(self, **spec: int) -> None:
        super().__init__(**spec)
        least = _BINS_PER_LEVEL * (self.levels + 1)
        if self.histogram.bins < least:
            raise ValueError(f"bins = {self.histogram.bins}; expected at least {least}: fewer do not show the levels")

    def search(self, low: float, high: float) -> tuple[float, float]:
        """Search the plane of both bounds."""
        return least_of(self.divergences, low, high)

    def divergences(self, low: torch.Tensor, high: torch.Tensor) -> torch.Tensor:
        """Give the KL divergence of quantizing with each pair of bounds: all shape (candidates,), float64.

        Infinite where the bounds hold fewer bins than there are levels: nothing could be told of them.
        """
        values, counts = self._without_spike()
        low, high = low.unsqueeze(1), high.unsqueeze(1)
        inside = (values >= low) & (values <= high)
        kept = counts * inside
        whole = _with_outliers(kept, (counts * (values < low)).sum(1), (counts * (values > high)).sum(1), inside)
        told = _spread(kept, inside, self._steps(values, low, high), self.levels + 1)
        whole, told = (part / part.sum(1, keepdim=True) for part in (whole, told))
        divergence = (torch.xlogy(whole, whole) - torch.xlogy(whole, told)).sum(1)
        too_few = ((high - low) / self.histogram.width).squeeze(1) < self.levels + 1
        return divergence.where(~too_few & inside.any(1), torch.inf)

    def _steps(self, values: torch.Tensor, low: torch.Tensor, high: torch.Tensor) -> torch.Tensor:
        scale = ((high - low) / self.levels).clamp_min(torch.finfo(torch.float32).eps)
        return torch.clamp(torch.round(values / scale) - torch.round(low / scale), 0, self.levels).long()

    def _without_spike(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Give the histogram with no more zeros than values beside zero.

        Zero is exact with any bounds, but ReLU makes it half of all values, which would be reckoned as smeared.
        """
        values, counts = self.histogram.used()
        zero = int(values.abs().argmin())
        beside = torch.cat((counts[max(zero - 1, 0) : zero], counts[zero + 1 : zero + 2]))
        if beside.numel():
            counts[zero] = torch.minimum(counts[zero], beside.max())
        return values, counts


def _with_outliers(kept: torch.Tensor, below: torch.Tensor, above: torch.Tensor, inside: torch.Tensor) -> torch.Tensor:
    """Add what lies outside the bounds to the first and the last bin inside: shape (candidates, bins)."""
    first = inside.to(torch.uint8).argmax(1, keepdim=True)
    last = (inside * torch.arange(inside.shape[1])).argmax(1, keepdim=True)
    return kept.scatter_add(1, first, below.unsqueeze(1)).scatter_add(1, last, above.unsqueeze(1))


def _spread(kept: torch.Tensor, inside: torch.Tensor, steps: torch.Tensor, num_levels: int) -> torch.Tensor:
    """Deal what each level holds out evenly among its bins: shape (candidates, bins)."""
    empty = kept.new_zeros(len(kept), num_levels)
    level, members = empty.scatter_add(1, steps, kept), empty.scatter_add(1, steps, inside.to(kept.dtype))
    return (level / members.clamp_min(1)).gather(1, steps) * inside


def least_of(
    error: Callable[[torch.Tensor, torch.Tensor], torch.Tensor], low: float, high: float
) -> tuple[float, float]:
    """Find the pair of bounds within `low` <= 0 <= `high` whose error is least.

    `error` takes candidates of both, shape (candidates,) each. A grid over the whole plane, denser near zero, then
    finer ones around the best: bounds are found to a thousandth, or to less where they are near zero.
    """
    roots = (0.5, 0.5)
    for radius in (0.5, 1 / 16, 1 / 128):
        lows, highs = (_around(root, radius) for root in roots)
        grid = torch.cartesian_prod(lows if low < 0 else lows[:1], highs if high > 0 else highs[:1])
        best = grid[int(error(grid[:, 0].square() * low, grid[:, 1].square() * high).argmin())]
        roots = (float(best[0]), float(best[1]))
    return roots[0] ** 2 * low, roots[1] ** 2 * high


def _around(root: float, radius: float) -> torch.Tensor:
    """Give candidates in descending order, so that of equal errors the widest range wins."""
    candidates: torch.Tensor = (
        torch.linspace(root - radius, root + radius, 17, dtype=torch.float64).clamp(0, 1).unique()
    )
    return candidates.flip(0)
