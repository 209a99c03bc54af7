"""The rules of calibrators."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import numpy as np

from qgate.protocols import Sample
from qgate.testing.conformance import Conformance, expect, rule

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qgate.protocols import Calibrator

__all__ = ["CalibratorConformance", "LabelledData"]

_LABELS = ("a",) * 24 + ("b",) * 6 + ("ab",) * 3 + ("c",) + ("",) * 6


class LabelledData:
    """A data set of small arrays; of the classes that each holds, a letter is one."""

    def __init__(self, labels: Sequence[str] = _LABELS) -> None:
        self.labels = labels

    def __len__(self) -> int:
        return len(self.labels)

    def sample(self, index: int) -> Sample:
        """Give an array drawn for that index, shape (3, 4, 4), and the classes."""
        values = np.random.default_rng(index).random((3, 4, 4), dtype=np.float32)
        return Sample(self.sample_id(index), values, self.labels[index])

    def sample_id(self, index: int) -> str:
        """Name the sample by its index."""
        return f"sample-{index}"

    def strata(self, index: int) -> frozenset[str]:
        """Give the classes."""
        return frozenset(self.labels[index])

    def fingerprint(self, index: int) -> str:
        """Name the content, which is drawn by the index."""
        return str(index)


class CalibratorConformance(Conformance):
    """A calibrator chooses distinct samples, as many as asked for, and the same ones for the same `rng`.

    A subclass sets `calibrator`, and `dataset` where the calibrator needs samples of its own kind.
    """

    kind = "calibrator"
    calibrator: type[Calibrator]

    def dataset(self) -> Any:
        """Give a data set of 20 samples or more; by default of small arrays, some of them labelled."""
        return LabelledData()

    @rule
    def test_it_says_what_it_is(self) -> None:
        """The class has a name."""
        self.expect_name()

    @rule
    def test_indices_are_distinct(self) -> None:
        """No sample is chosen twice."""
        for count in self._counts():
            chosen = self._select(count)
            expect(len(set(chosen)) == len(chosen), f"distinct indices for {count} samples", chosen)

    @rule
    def test_indices_are_of_the_data(self) -> None:
        """Each chosen index is an int of the data set's range."""
        size = len(self.dataset())
        for count in self._counts():
            chosen = self._select(count)
            expect(all(isinstance(index, int) for index in chosen), "a list of int", [type(i).__name__ for i in chosen])
            expect(all(0 <= index < size for index in chosen), f"indices from 0 to {size - 1}", chosen)

    @rule
    def test_as_many_as_asked_for(self) -> None:
        """As many samples are chosen as asked for."""
        for count in self._counts():
            expect(len(self._select(count)) == count, f"{count} indices", len(self._select(count)))

    @rule
    def test_all_where_there_are_fewer(self) -> None:
        """Where there are fewer samples than asked for, all are chosen."""
        size = len(self.dataset())
        chosen = self._select(size + 5)
        expect(set(chosen) == set(range(size)), f"all of {size} samples when asked for {size + 5}", chosen)

    @rule
    def test_nothing_to_choose_from(self) -> None:
        """Of no samples none is chosen."""
        chosen = self._select(8, LabelledData(()))
        expect(len(chosen) == 0, "no index", chosen)

    @rule
    def test_samples_without_strata(self) -> None:
        """Samples of which nothing is known are chosen, too."""
        chosen = self._select(8, LabelledData(("",) * 20))
        expect(len(chosen) == len(set(chosen)) == 8, "8 of 20 samples that hold no class", chosen)

    @rule
    def test_the_rng_decides(self) -> None:
        """The same `rng` chooses the same samples, whatever the process has drawn before."""
        state, numpy_state = random.getstate(), np.random.get_state()
        try:
            choices = []
            for seed in (1, 2):
                random.seed(seed)
                np.random.seed(seed)  # the global state, which a calibrator must not use
                choices.append(self._select(8))
        finally:
            random.setstate(state)
            np.random.set_state(numpy_state)
        expect(choices[0] == choices[1], f"{choices[0]} again", choices[1])

    def _counts(self) -> tuple[int, ...]:
        return 1, 7, len(self.dataset()) - 1, len(self.dataset())

    def _select(self, count: int, dataset: Any = None) -> list[int]:
        dataset = self.dataset() if dataset is None else dataset
        return list(self.calibrator().select(dataset, count, np.random.default_rng(3)))
