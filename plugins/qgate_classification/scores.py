"""What a classifier predicts of one image, and what is really there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class ClassScores:
    """One score a class, float32 (C,), in the order of the model's class names: logits or probabilities alike.

    Raises `ValueError` where `scores` has another number of dimensions.
    """

    scores: NDArray[np.float32]

    def __post_init__(self) -> None:
        if self.scores.ndim != 1:
            raise ValueError(f"scores must have shape (classes,), got {self.scores.shape}")

    def __len__(self) -> int:
        return len(self.scores)

    def best(self) -> int:
        """Give the class of the highest score, of equal ones the first."""
        return int(self.scores.argmax())

    def rank(self, label: int) -> int:
        """Count the classes before this one: those of a higher score, and of equal scores the earlier ones."""
        score = self.scores[label]
        return int((self.scores > score).sum() + (self.scores[:label] == score).sum())

    def without_class(self, index: int) -> ClassScores:
        """Give the scores with one class behind all others."""
        scores = self.scores.copy()
        scores[index] = -np.inf
        return ClassScores(scores)


@dataclass(frozen=True)
class ClassTarget:
    """The class of one image, an index of the model's classes, and how many classes the data set knows."""

    index: int
    num_classes: int

    def class_indices(self) -> frozenset[int]:
        """Give the class."""
        return frozenset({self.index})

    def targets(self, height: int, width: int) -> ClassTarget:  # noqa: ARG002  # as labels of other tasks have it
        """Give it as the target of an image of any size."""
        return self
