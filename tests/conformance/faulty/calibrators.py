"""Calibrators with one fault each, and the rule that it breaks."""

from __future__ import annotations

import numpy as np

from qgate.testing import CalibratorConformance


class Even:
    """Takes samples at even distances; without a fault."""

    name = "even"

    def select(self, dataset, num_samples, rng):
        count = min(num_samples, len(dataset))
        return [index * len(dataset) // count for index in range(count)]


class Suite(CalibratorConformance):
    calibrator = Even


def asked_for_some(dataset, num_samples):
    return 1 < num_samples < len(dataset) and dataset.strata(0)


class WithoutName(Even):
    name = None


class ChoosesTwice(Even):
    def select(self, dataset, num_samples, rng):
        chosen = super().select(dataset, num_samples, rng)
        return [chosen[0], *chosen[:-1]] if asked_for_some(dataset, num_samples) else chosen


class CountsInNumpy(Even):
    def select(self, dataset, num_samples, rng):
        return list(np.array(super().select(dataset, num_samples, rng), dtype=int))


class ChoosesOneTooFew(Even):
    def select(self, dataset, num_samples, rng):
        return super().select(dataset, num_samples - bool(asked_for_some(dataset, num_samples)), rng)


class WantsEnough(Even):
    def select(self, dataset, num_samples, rng):
        if num_samples > len(dataset) > 0:
            raise ValueError("more than there are")
        return super().select(dataset, num_samples, rng)


class ChoosesOfNothing(Even):
    def select(self, dataset, num_samples, rng):
        return super().select(dataset, num_samples, rng) or [0]


class WantsStrata(Even):
    def select(self, dataset, num_samples, rng):
        return super().select(dataset, num_samples, rng) if len(dataset) == 0 or dataset.strata(0) else []


class DrawsByItself(Even):
    def select(self, dataset, num_samples, rng):
        return [int(index) for index in np.random.permutation(len(dataset))[:num_samples]]


FAULTS = {
    WithoutName: "test_it_says_what_it_is",
    ChoosesTwice: "test_indices_are_distinct",
    CountsInNumpy: "test_indices_are_of_the_data",
    ChoosesOneTooFew: "test_as_many_as_asked_for",
    WantsEnough: "test_all_where_there_are_fewer",
    ChoosesOfNothing: "test_nothing_to_choose_from",
    WantsStrata: "test_samples_without_strata",
    DrawsByItself: "test_the_rng_decides",
}
