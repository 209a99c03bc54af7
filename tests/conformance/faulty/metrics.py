"""Metrics with one fault each, and the rule that it breaks."""

from __future__ import annotations

from typing import Any

import numpy as np

from qgate.testing import MetricConformance


class Recall:
    """The share of samples whose class was found; without a fault."""

    name = "recall"
    unit = ""
    higher_is_better = True

    def __init__(self, class_names):
        self.class_names = tuple(class_names)
        self.found: list[bool] = []
        self.targets: list[str] = []

    def update(self, sample_id, prediction, target):
        self.found.append(self.class_names[int(prediction.argmax())] == target)
        self.targets.append(target)

    def compute(self, weights, where=None):
        with np.errstate(invalid="ignore"):
            return self.hits(weights, where) / self.total(weights, where)

    def hits(self, weights, where):
        return weights * self.inside(where) @ np.array(self.found, dtype=float)

    def total(self, weights, where):
        return (weights * self.inside(where)).sum(axis=1)

    def slices(self):
        return {"class": self.class_names}

    def support(self, where=None):
        return int(self.inside(where).sum())

    def summary(self):
        return [self.found, self.targets]

    def merge(self, summary):
        self.found += summary[0]
        self.targets += summary[1]

    def inside(self, where):
        return np.array([not where or where["class"] == target for target in self.targets], dtype=bool)


class Suite(MetricConformance):
    metric = Recall
    class_names = ("hot", "cold", "never")

    def samples(self) -> list[tuple[Any, Any]]:
        scores = np.random.default_rng(0).random((8, 2))
        return [(row, ("hot", "cold")[index % 2]) for index, row in enumerate(scores)]


class WithoutUnit(Recall):
    unit = None


class Constant(Recall):
    def compute(self, weights, where=None):
        values = super().compute(weights, where)
        return np.where(np.isnan(values), values, 0.5)


class Complex(Recall):
    def compute(self, weights, where=None):
        return super().compute(weights, where).astype(complex)


class ClipsWeights(Recall):
    def compute(self, weights, where=None):
        return super().compute(np.minimum(weights, 1), where)


class SmoothsWeights(Recall):
    def compute(self, weights, where=None):
        some = weights.sum(axis=1, keepdims=True) > 0
        return super().compute(np.where(some, np.maximum(weights, 0.1), 0), where)


class OneTotalForAllRows(Recall):
    def total(self, weights, where):
        return np.full(len(weights), super().total(weights, where).mean())


class ZeroOfNothing(Recall):
    def compute(self, weights, where=None):
        return super().compute(weights, where) if self.targets else np.zeros(len(weights))


class ZeroOfNoWeights(Recall):
    def compute(self, weights, where=None):
        without = (weights.sum(axis=1) == 0) & bool(self.targets)
        return np.where(without, 0.0, super().compute(weights, where))


class ScalesWeightsInPlace(Recall):
    def compute(self, weights, where=None):
        weights /= max(weights.max(initial=0), 1)
        return super().compute(weights, where)


class ScalesScoresInPlace(Recall):
    def update(self, sample_id, prediction, target):
        prediction -= prediction.max()
        super().update(sample_id, prediction, target)


class CachesForEver(Recall):
    cached = None

    def inside(self, where):
        if where:
            return super().inside(where)
        self.cached = super().inside(None) if self.cached is None else self.cached
        return self.cached


class NamesASliceTwice(Recall):
    def slices(self):
        return {"class": (*self.class_names, self.class_names[0])}


class RestsOnMoreThanThereIs(Recall):
    def support(self, where=None):
        support = super().support(where)
        return support + 100 if where and support else support


class RestsOnTheWhole(Recall):
    def support(self, where=None):
        return super().support()


class MergesInFront(Recall):
    def merge(self, summary):
        self.found = summary[0] + self.found
        self.targets = summary[1] + self.targets


FAULTS = {
    WithoutUnit: "test_it_says_what_it_is",
    Constant: "test_the_samples_can_tell",
    Complex: "test_one_value_for_each_row",
    ClipsWeights: "test_a_weight_of_two",
    SmoothsWeights: "test_a_weight_of_zero",
    OneTotalForAllRows: "test_rows_are_independent",
    ZeroOfNothing: "test_nothing_is_undefined",
    ZeroOfNoWeights: "test_weights_of_zero_are_undefined",
    ScalesWeightsInPlace: "test_weights_stay",
    ScalesScoresInPlace: "test_samples_stay",
    CachesForEver: "test_a_later_update_counts",
    NamesASliceTwice: "test_slices_are_words",
    RestsOnMoreThanThereIs: "test_a_slice_is_a_part",
    RestsOnTheWhole: "test_a_value_rests_on_something",
    MergesInFront: "test_merged_shards_are_the_whole",
}
