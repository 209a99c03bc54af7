"""Counting values in bounded memory."""

from __future__ import annotations

import torch

__all__ = ["Histogram", "Sampled"]

# What is counted of a tensor: its least and greatest value, how many values each of the sample stands for, the sample.
Sampled = tuple[float, float, int, torch.Tensor]

# Values counted of one tensor: enough for a histogram, and little beside the convolution that made it.
_SAMPLE = 1 << 14


class Histogram:
    """Counts of values in bins of one width that together cover zero and every value seen.

    It grows by merging pairs of bins, which moves no mass between values that stay apart: how many values came, and in
    what order, takes no more memory. Of a large tensor an evenly spread sample is counted, with the weight of all;
    `least` and `greatest` are exact, and NaN once a value was not finite.

    Raises `ValueError` where `bins` cannot be merged in pairs again and again, to the last one.
    """

    def __init__(self, bins: int) -> None:
        if bins < 2 or bins & (bins - 1):  # noqa: PLR2004  # a pair
            raise ValueError(f"bins = {bins}; expected a power of two, such as {1 << max(bins, 2).bit_length() - 1}")
        self.bins = bins
        self.counts = torch.empty(0)  # FX makes many observers that never see a value
        self.low = self.width = 0.0
        self.least, self.greatest = torch.inf, -torch.inf

    @staticmethod
    def sampled(x: torch.Tensor) -> Sampled:
        """Give what `count` takes of a float32 tensor that holds at least one value."""
        low, high = (float(bound) for bound in torch.aminmax(x))
        step = x.numel() // _SAMPLE | 1  # odd, so as not to follow one column of a power-of-two width
        return low, high, step, x.flatten()[::step].clone()  # the model may overwrite `x`

    def count(self, sampled: Sampled) -> None:
        """Take in a tensor's values."""
        low, high, step, sample = sampled
        if not (low > -torch.inf and high < torch.inf):
            self.least = torch.nan
            return
        self.least, self.greatest = min(self.least, low), max(self.greatest, high)
        self._cover(min(low, 0.0), max(high, 0.0))
        self.counts += step * torch.histc(sample, self.bins, min=self.low, max=self.low + self.width * self.bins)

    def used(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Give the middles of the bins that hold something, and their counts: both float64, shape (bins used,)."""
        used = self.counts.nonzero().squeeze(1)
        return self.low + (used + 0.5) * self.width, self.counts[used]

    def quantile(self, fraction: float) -> float:
        """Give the value below which `fraction` of all values lie, values spread evenly over their bin."""
        below = self.counts.cumsum(0)
        rank = fraction * float(below[-1])
        index = min(int(torch.searchsorted(below, rank)), self.bins - 1)
        share = (rank - float(below[index])) / max(float(self.counts[index]), 1.0) + 1.0
        return min(max(self.low + (index + share) * self.width, self.least), self.greatest)

    def _cover(self, low: float, high: float) -> None:
        if not self.counts.numel():
            self.counts = torch.zeros(self.bins, dtype=torch.float64)
            self.low, self.width = low, max((high - low) / self.bins, torch.finfo(torch.float32).tiny)
            return
        while low < self.low or high > self.low + self.width * self.bins:
            self._double(downwards=low < self.low)

    def _double(self, *, downwards: bool) -> None:
        merged = self.counts.reshape(-1, 2).sum(1)
        room = torch.zeros_like(merged)
        self.counts = torch.cat((room, merged) if downwards else (merged, room))
        if downwards:
            self.low -= self.width * self.bins
        self.width *= 2
