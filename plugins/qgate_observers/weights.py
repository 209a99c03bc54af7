"""Which values of a weight int8 should cover."""

from __future__ import annotations

from typing import ClassVar

import torch

from qgate.quantization.observers import PerChannelMinMaxObserver

__all__ = ["PerChannelMseObserver"]

_FRACTIONS = torch.linspace(1.0, 0.3, 71).tolist()  # of a channel's greatest weight; at 8 bits, less is never best


class PerChannelMseObserver(PerChannelMinMaxObserver):
    """Clips each output channel of the weight where the mean squared error of quantizing it is least."""

    name: ClassVar[str] = "per_channel_mse"

    def observe(self, x: torch.Tensor) -> None:
        """Take the range of each channel of `x`, and then the best part of it."""
        super().observe(x)
        channels = x.movedim(self.ch_axis, 0).flatten(1)
        greatest = torch.maximum(-self.low, self.high)
        best, chosen = torch.full_like(greatest, torch.inf), greatest
        for fraction in _FRACTIONS:
            error = self._squared_error(channels, fraction * greatest)
            chosen = torch.where(error < best, fraction * greatest, chosen)
            best = torch.minimum(error, best)
        self.low, self.high = -chosen, chosen

    def _squared_error(self, channels: torch.Tensor, bound: torch.Tensor) -> torch.Tensor:
        """Sum the error of each row of (channels, values) with bounds of shape (channels,): shape (channels,)."""
        half = (self.quant_max - self.quant_min) / 2
        scale = torch.maximum(bound / half, self.least_scale).clamp_min(float(self.eps)).unsqueeze(1)
        steps = torch.clamp(torch.round(channels / scale), self.quant_min, self.quant_max)
        return (steps * scale - channels).square().sum(1)
