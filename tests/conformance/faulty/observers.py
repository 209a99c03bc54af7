"""Observers with one fault each, and the rule that it breaks."""

from __future__ import annotations

import torch

import qgate
from qgate.errors import QuantizationError
from qgate.testing import ObserverConformance


class Widest(qgate.ActivationObserver):
    """Covers all that it saw; without a fault."""

    name = "widest"

    def __init__(self, **spec):
        super().__init__(**spec)
        self.low, self.high = torch.tensor(torch.inf), torch.tensor(-torch.inf)

    def observe(self, x):
        self.low, self.high = torch.minimum(self.low, x.min()), torch.maximum(self.high, x.max())

    def bounds(self):
        return self.low, self.high


class Suite(ObserverConformance):
    observer = Widest
    streaming_tolerance = 1e-6  # sums in another order are rounded differently


class WithoutName(Widest):
    name = ""


class ClampsInPlace(Widest):
    def observe(self, x):
        super().observe(x.clamp_(-1, 1))


class LeavesZeroOut(Widest):
    def calculate_qparams(self, **_):
        scale, zero_point = super().calculate_qparams()
        if not self.low < self.high:
            return scale, zero_point
        scale = (self.high - self.low) / self.levels
        return scale, self.quant_min - torch.round(self.low / scale).int()


class ScaleOfTheSpread(Widest):
    def calculate_qparams(self, **_):
        scale, zero_point = super().calculate_qparams()
        return (scale if self.low < self.high else torch.zeros(1)), zero_point


class AScaleForEachOfThree(Widest):
    def calculate_qparams(self, **_):
        scale, zero_point = super().calculate_qparams()
        return scale.repeat(3), zero_point.repeat(3)


class CoversNextToNothing(Widest):
    def bounds(self):
        return self.low / 100, self.high / 100


class TakesNanForARange(Widest):
    def calculate_qparams(self, **_):
        try:
            return super().calculate_qparams()
        except QuantizationError:
            if self.low > self.high:  # nothing was seen
                raise
            return self.high - self.low, torch.tensor(0)


class RangeOfNothing(Widest):
    def bounds(self):
        return (self.low, self.high) if not self.low > self.high else (torch.tensor(-1.0), torch.tensor(1.0))


class MeanOfBatches(Widest):
    def __init__(self, **spec):
        super().__init__(**spec)
        self.total, self.count = torch.zeros(2), 0

    def observe(self, x):
        super().observe(x)
        self.total, self.count = self.total + torch.stack(torch.aminmax(x)), self.count + 1

    def bounds(self):
        low, high = self.total / self.count if self.count else torch.full((2,), torch.nan)
        return low, high


class FirstValueMatters(Widest):
    first = 0.0

    def observe(self, x):
        self.first = self.first or float(x.flatten()[0])
        super().observe(x)

    def bounds(self):
        factor = 1 + 0.1 * (abs(self.first) % 1)
        return self.low * factor, self.high * factor


class RemembersWeights(qgate.WeightObserver):
    name = "remembers"

    def __init__(self, **spec):
        super().__init__(per_channel=False, **spec)
        self.low, self.high = torch.tensor(torch.inf), torch.tensor(-torch.inf)

    observe = Widest.observe
    bounds = Widest.bounds


class KeepsAll(Widest):
    def __init__(self, **spec):
        super().__init__(**spec)
        self.kept = []

    def observe(self, x):
        self.kept.append(x.clone())
        super().observe(x)


class CopiesNothing(Widest):
    def __deepcopy__(self, memo):
        return type(self)()


FAULTS = {
    WithoutName: "test_it_says_what_it_is",
    ClampsInPlace: "test_values_pass_unchanged",
    LeavesZeroOut: "test_a_scale",
    ScaleOfTheSpread: "test_values_without_spread",
    AScaleForEachOfThree: "test_one_scale_a_channel",
    CoversNextToNothing: "test_the_range_covers_most",
    TakesNanForARange: "test_values_that_are_not_finite",
    RangeOfNothing: "test_without_values",
    MeanOfBatches: "test_streaming_equals_batch",
    FirstValueMatters: "test_order_is_nothing",
    RemembersWeights: "test_the_last_weight_counts",
    KeepsAll: "test_memory_is_bounded",
    CopiesNothing: "test_a_copy_is_whole",
}
