"""Which samples the observers see."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    import numpy as np

    from qgate.protocols import Dataset

__all__ = ["FirstCalibrator", "RandomCalibrator", "StratifiedCalibrator"]


class FirstCalibrator:
    """Takes the first samples, in the data set's order."""

    name: ClassVar[str] = "first"

    def select(self, dataset: Dataset, num_samples: int, rng: np.random.Generator) -> list[int]:  # noqa: ARG002
        """Give the first indices."""
        return list(range(min(num_samples, len(dataset))))


class RandomCalibrator:
    """Takes samples at random."""

    name: ClassVar[str] = "random"

    def select(self, dataset: Dataset, num_samples: int, rng: np.random.Generator) -> list[int]:
        """Give distinct indices, in the data set's order."""
        chosen = rng.permutation(len(dataset))[:num_samples]
        return sorted(int(index) for index in chosen)


class StratifiedCalibrator:
    """Covers the classes: each next sample is one that holds the class seen least so far.

    Samples of no stratum (images without labels) come last, at random, as all do where nothing is labelled.
    """

    name: ClassVar[str] = "stratified"

    def select(self, dataset: Dataset, num_samples: int, rng: np.random.Generator) -> list[int]:
        """Give distinct indices, in the data set's order."""
        order = [int(index) for index in rng.permutation(len(dataset))]
        strata = {index: dataset.strata(index) for index in order}
        holders = {name: [i for i in order if name in strata[i]] for name in sorted(set().union(*strata.values()))}
        seen: Counter[str] = Counter()
        chosen: dict[int, None] = {}
        while holders and len(chosen) < num_samples:
            rarest = min(holders, key=lambda name: (seen[name], len(holders[name])))
            left = [index for index in holders[rarest] if index not in chosen]
            if not left:
                del holders[rarest]
                continue
            chosen[left[0]] = None
            seen.update(strata[left[0]])
        rest = [index for index in order if index not in chosen]
        return sorted([*chosen, *rest[: max(0, num_samples - len(chosen))]])
