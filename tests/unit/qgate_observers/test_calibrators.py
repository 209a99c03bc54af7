from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from qgate.engine.calibrate import select_samples
from qgate.engine.factory import FactoryDataset
from qgate.errors import DataError
from qgate_observers.calibrators import FirstCalibrator, RandomCalibrator, StratifiedCalibrator

CALIBRATORS = [FirstCalibrator, RandomCalibrator, StratifiedCalibrator]


class Labelled(FactoryDataset):
    """Samples that hold the classes which are spelt out."""

    def __init__(self, labels: list[str]) -> None:
        super().__init__([(np.zeros(1), None)] * len(labels), "labelled")
        self.labels = labels

    def strata(self, index: int) -> frozenset[str]:
        return frozenset(self.labels[index])


# Many of "a", few of "b", one sample with "c" and one with "d" and "e" together, and some with nothing.
RARE = Labelled(["a"] * 80 + ["ab"] * 10 + ["c"] + ["ade"] + [""] * 20)


@pytest.mark.parametrize("calibrator", CALIBRATORS)
@pytest.mark.parametrize("wanted", [1, 17, 112, 500])
def test_as_many_distinct_samples_as_asked_for_or_all(calibrator: type[FirstCalibrator], wanted: int) -> None:
    chosen = select_samples(calibrator(), RARE, wanted, seed=0)

    assert len(chosen) == len(set(chosen)) == min(wanted, 112)
    assert set(chosen) <= set(range(112))


@pytest.mark.parametrize("calibrator", CALIBRATORS)
def test_the_same_seed_chooses_the_same_samples(calibrator: type[FirstCalibrator]) -> None:
    assert select_samples(calibrator(), RARE, 20, seed=3) == select_samples(calibrator(), RARE, 20, seed=3)


@pytest.mark.parametrize("calibrator", [RandomCalibrator, StratifiedCalibrator])
def test_another_seed_chooses_others(calibrator: type[FirstCalibrator]) -> None:
    assert select_samples(calibrator(), RARE, 20, seed=3) != select_samples(calibrator(), RARE, 20, seed=4)


def test_first_takes_the_first() -> None:
    assert select_samples(FirstCalibrator(), RARE, 5, seed=9) == [0, 1, 2, 3, 4]


def test_random_is_fair() -> None:
    counts = Counter(index for seed in range(1000) for index in select_samples(RandomCalibrator(), RARE, 28, seed))

    # Each of 112 samples is one of 28 in a quarter of 1000 draws, with a standard deviation of 13.7.
    assert all(abs(counts[index] - 250) < 5 * 13.7 for index in range(112))


@pytest.mark.parametrize("seed", range(5))
def test_stratified_covers_the_classes_with_few_samples(seed: int) -> None:
    chosen = select_samples(StratifiedCalibrator(), RARE, 4, seed)

    assert set().union(*(RARE.strata(index) for index in chosen)) == set("abcde")


def test_stratified_balances_the_classes() -> None:
    dataset = Labelled(["a"] * 90 + ["b"] * 10)

    chosen = select_samples(StratifiedCalibrator(), dataset, 20, seed=0)

    assert Counter(dataset.labels[index] for index in chosen) == {"a": 10, "b": 10}


def test_stratified_takes_any_where_nothing_is_labelled() -> None:
    chosen = select_samples(StratifiedCalibrator(), Labelled([""] * 50), 10, seed=0)

    assert len(set(chosen)) == 10
    assert chosen != list(range(10))


@pytest.mark.parametrize("calibrator", CALIBRATORS)
def test_nothing_to_choose_from_is_an_error(calibrator: type[FirstCalibrator]) -> None:
    with pytest.raises(DataError, match=f'calibrator "{calibrator.name}" chose no sample of 0; there is nothing to'):
        select_samples(calibrator(), Labelled([]), 8, seed=0)
