"""A base for metrics that are a mean over samples."""

from __future__ import annotations

from abc import ABC, abstractmethod
from array import array
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from qgate.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

__all__ = ["MeanMetric"]


class MeanMetric(ABC):
    """A metric whose value is the mean of one score a sample; a subclass names it and writes `score`."""

    name: ClassVar[str]
    unit: ClassVar[str] = ""
    higher_is_better: ClassVar[bool] = True

    def __init__(self, class_names: Sequence[str]) -> None:
        self.class_names = tuple(class_names)
        self._scores = array("d")

    @abstractmethod
    def score(self, prediction: Any, target: Any) -> float:
        """Score one prediction against its target."""

    def update(self, sample_id: str, prediction: Any, target: Any) -> None:  # noqa: ARG002  # the protocol's
        """Take one sample in."""
        self._scores.append(float(self.score(prediction, target)))

    def summary(self) -> NDArray[np.float64]:
        """Give the scores so far."""
        return np.array(self._scores)

    def merge(self, summary: NDArray[np.float64]) -> None:
        """Take in another instance's scores."""
        self._scores.extend(summary.tolist())

    def compute(self, weights: NDArray[np.float64], where: Mapping[str, str] | None = None) -> NDArray[np.float64]:
        """Give the weighted mean for each row of `weights`, shape (rows, samples); NaN where a row's sum is 0."""
        if where:
            raise DataError(f'metric "{self.name}" has no slices; it was asked for {dict(where)}')
        with np.errstate(invalid="ignore"):
            mean: NDArray[np.float64] = (weights @ np.array(self._scores)) / weights.sum(axis=1)
        return mean

    def slices(self) -> Mapping[str, Sequence[str]]:
        """Give none."""
        return {}

    def support(self, where: Mapping[str, str] | None = None) -> int:  # noqa: ARG002  # the protocol's
        """Count the samples."""
        return len(self._scores)
