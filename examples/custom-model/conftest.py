"""What this project adds to qgate: how its predictions are scored, and how its activations are clipped."""

from typing import Any

import torch

import qgate


class Accuracy(qgate.MeanMetric):
    """The share of images whose digit is right."""

    name = "accuracy"

    def score(self, prediction: Any, target: Any) -> float:
        """Score one image."""
        return float(prediction == target)


class ClippedObserver(qgate.ActivationObserver):
    """Covers all but a share of the values at either end, so that a few outliers don't make every int8 step coarse."""

    name = "clipped"

    def __init__(self, *, outliers: float = 0.001, **spec: int) -> None:
        super().__init__(**spec)
        if not 0 <= outliers < 0.5:
            raise ValueError(f"outliers must be at least 0 and below 0.5, got {outliers}")
        self.outliers = outliers
        self.low, self.high = torch.tensor(torch.inf), torch.tensor(-torch.inf)

    def observe(self, x: torch.Tensor) -> None:
        """Widen the range to that of `x` without its outliers."""
        clipped = int(self.outliers * x.numel())
        self.low = torch.minimum(self.low, x.flatten().kthvalue(1 + clipped).values)
        self.high = torch.maximum(self.high, x.flatten().kthvalue(x.numel() - clipped).values)

    def bounds(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Give the range that int8 will cover."""
        return self.low, self.high


@qgate.hookimpl
def qgate_register_metrics() -> list[type]:
    """Make `[models.X.thresholds.accuracy]` known."""
    return [Accuracy]


@qgate.hookimpl
def qgate_register_observers() -> list[type]:
    """Make `activation = { observer = "clipped" }` known."""
    return [ClippedObserver]
