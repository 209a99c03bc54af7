"""Top-1 and top-5 accuracy, re-weightable by image."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from qgate.errors import ConfigError, DataError, ModelError
from qgate_classification.scores import ClassScores, ClassTarget

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]


class _TopAccuracy:
    """The share of images whose class is among the `count` classes of highest scores.

    Of equal scores that of the earlier class counts as the higher, as numpy's and torch's `argmax` have it.
    """

    name: ClassVar[str]
    unit: ClassVar[str] = ""
    higher_is_better: ClassVar[bool] = True
    count: ClassVar[int]

    def __init__(self, class_names: Sequence[str]) -> None:
        self._class_names = tuple(class_names)
        if class_names:
            self._check_count(len(class_names))
        self._labels: list[int] = []
        self._found: list[bool] = []

    def update(self, sample_id: str, prediction: Any, target: Any) -> None:
        """Take in the `ClassScores` of one image and its class, a `ClassTarget` or an index.

        Raises `ModelError`, `DataError`.
        """
        self._check_prediction(sample_id, prediction)
        label = self._label(sample_id, target, len(prediction))
        self._labels.append(label)
        self._found.append(prediction.rank(label) < self.count)

    def summary(self) -> list[list[Any]]:
        """Give the class of each image, and whether it was found."""
        return [self._labels, self._found]

    def merge(self, summary: list[list[Any]]) -> None:
        """Take in another instance's images."""
        self._labels += summary[0]
        self._found += summary[1]

    def compute(self, weights: Floats, where: Mapping[str, str] | None = None) -> Floats:
        """Compute the share for each row of `weights` (rows, images); NaN where none of a slice's images is in it."""
        chosen = self._chosen(where)
        total = weights[:, chosen].sum(axis=1)
        found = weights[:, chosen] @ np.array(self._found, dtype=np.float64)[chosen]
        share = np.full(len(weights), np.nan)
        np.divide(found, total, out=share, where=total > 0)
        return share

    def slices(self) -> Mapping[str, Sequence[str]]:
        """List the classes."""
        return {"class": self._class_names}

    def support(self, where: Mapping[str, str] | None = None) -> int:
        """Count the images."""
        return int(self._chosen(where).sum())

    def _chosen(self, where: Mapping[str, str] | None) -> NDArray[np.bool_]:
        labels = np.array(self._labels, dtype=np.int64)
        return labels == self._class_names.index(where["class"]) if where else np.ones(len(labels), dtype=bool)

    def _check_count(self, num_classes: int) -> None:
        if num_classes <= self.count:
            raise ConfigError(
                f'metric "{self.name}" says nothing of a model of {num_classes} classes: '
                f"every answer is among {self.count}; limit top1"
            )

    def _check_prediction(self, sample_id: str, prediction: Any) -> None:
        if not isinstance(prediction, ClassScores):
            raise ModelError(
                f'{sample_id}: metric "{self.name}" takes {ClassScores.__module__}.ClassScores, the model\'s '
                f"postprocess gives {type(prediction).__name__}; use qgate_classification.classifier.class_scores there"
            )
        if np.isnan(prediction.scores).any():
            raise ModelError(f"{sample_id}: the model's scores hold NaN")
        if self._class_names and len(prediction) != len(self._class_names):
            raise ModelError(
                f"{sample_id}: the model gives {len(prediction)} scores, but has {len(self._class_names)} class names"
            )
        self._check_count(len(prediction))

    def _label(self, sample_id: str, target: Any, num_classes: int) -> int:
        if isinstance(target, ClassTarget):
            if target.num_classes != num_classes:
                raise DataError(
                    f"{sample_id}: the data set has {target.num_classes} classes, the model gives {num_classes} "
                    "scores; name the model's classes (class_names), or use the data that it was trained for"
                )
            target = target.index
        if not isinstance(target, int | np.integer) or isinstance(target, bool):
            raise DataError(
                f'{sample_id}: metric "{self.name}" compares with a class index, the data set gives '
                f"{type(target).__name__}; use labelled images, or another metric"
            )
        if not 0 <= target < num_classes:
            raise DataError(f"{sample_id}: is of class {target}, the model has {num_classes} classes, from 0 on")
        return int(target)


class Top1(_TopAccuracy):
    """The share of images whose class has the highest score."""

    name = "top1"
    count = 1


class Top5(_TopAccuracy):
    """The share of images whose class is among the five of highest scores."""

    name = "top5"
    count = 5
