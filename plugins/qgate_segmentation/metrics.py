"""Mean intersection over union of semantic segmentation, re-weightable by image."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from qgate.errors import DataError, ModelError
from qgate_segmentation.label_map import NO_CLASS, LabelMap

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]


class MeanIoU:
    """The mean over classes of intersection / union, in pixels of all images together.

    A class counts where a pixel is labelled as it or is predicted to be it (as in PASCAL VOC's and mmsegmentation's
    evaluation); pixels that are not labelled count for nothing.
    """

    name: ClassVar[str] = "miou"
    unit: ClassVar[str] = ""
    higher_is_better: ClassVar[bool] = True

    def __init__(self, class_names: Sequence[str]) -> None:
        self._class_names = tuple(class_names)
        self._num_classes = len(class_names) or NO_CLASS
        self._intersections: list[Ints] = []
        self._predicted: list[Ints] = []
        self._labelled: list[Ints] = []

    def update(self, sample_id: str, prediction: Any, target: Any) -> None:
        """Take in the `LabelMap` that is predicted and the one that is labelled. Raises `ModelError`, `DataError`."""
        self._check(sample_id, prediction, target)
        known = target.labels != NO_CLASS
        labelled, predicted = target.labels[known], prediction.labels[known]
        self._intersections.append(self._count(labelled[labelled == predicted]))
        self._predicted.append(self._count(predicted))
        self._labelled.append(self._count(labelled))

    def summary(self) -> list[Ints]:
        """Give the pixels of each image and class: found, predicted and labelled."""
        return [self._table(counts) for counts in self._counts]

    def merge(self, summary: list[Ints]) -> None:
        """Take in another instance's images."""
        for counts, others in zip(self._counts, summary, strict=True):
            counts += list(others)

    def compute(self, weights: Floats, where: Mapping[str, str] | None = None) -> Floats:
        """Compute the mean, or one class's IoU, for each row of `weights` (rows, images); NaN where undefined.

        One class's IoU is undefined where nothing is labelled as it.
        """
        intersection, labelled = weights @ self._table(self._intersections), weights @ self._table(self._labelled)
        union = weights @ self._table(self._predicted) + labelled - intersection
        iou = np.full(union.shape, np.nan)
        np.divide(intersection, union, out=iou, where=union > 0)
        if where:
            index = self._class_names.index(where["class"])
            return np.where(labelled[:, index] > 0, iou[:, index], np.nan)
        defined = np.isfinite(iou).sum(axis=1)
        mean = np.full(len(weights), np.nan)
        np.divide(np.nansum(iou, axis=1), defined, out=mean, where=defined > 0)
        return mean

    def slices(self) -> Mapping[str, Sequence[str]]:
        """List the classes."""
        return {"class": self._class_names}

    def support(self, where: Mapping[str, str] | None = None) -> int:
        """Count the images in which a pixel is labelled, or is labelled as one class."""
        labelled = self._table(self._labelled)
        if where:
            return int((labelled[:, self._class_names.index(where["class"])] > 0).sum())
        return int(labelled.any(axis=1).sum())

    @property
    def _counts(self) -> tuple[list[Ints], list[Ints], list[Ints]]:
        return self._intersections, self._predicted, self._labelled

    def _count(self, labels: NDArray[np.uint8]) -> Ints:
        return np.bincount(labels, minlength=NO_CLASS + 1)[: self._num_classes]

    def _table(self, counts: list[Ints]) -> Ints:
        """Stack counts, (images, classes)."""
        return np.array(counts, dtype=np.int64).reshape(-1, self._num_classes)

    def _check(self, sample_id: str, prediction: Any, target: Any) -> None:
        kind = f"{LabelMap.__module__}.LabelMap"
        if not isinstance(prediction, LabelMap):
            raise ModelError(
                f'{sample_id}: metric "{self.name}" takes {kind}, the model\'s postprocess gives '
                f"{type(prediction).__name__}; use qgate_segmentation.segmenter.label_map there"
            )
        if not isinstance(target, LabelMap):
            raise DataError(
                f'{sample_id}: metric "{self.name}" compares with {kind}, the data set gives '
                f'{type(target).__name__}; use format = "index_png" or another metric'
            )
        if prediction.labels.shape != target.labels.shape:
            raise ModelError(
                f"{sample_id}: the prediction has {prediction.labels.shape} pixels, the labels {target.labels.shape}; "
                "postprocess must give the original image's"
            )
        self._check_classes(sample_id, prediction.labels, ModelError, "predicts")
        self._check_classes(sample_id, target.labels, DataError, "is labelled as")

    def _check_classes(
        self, sample_id: str, labels: NDArray[np.uint8], error: type[DataError | ModelError], said: str
    ) -> None:
        highest = int(labels[labels != NO_CLASS].max(initial=0))
        if highest >= self._num_classes:
            raise error(f"{sample_id}: {said} class {highest}, the model has {self._num_classes} classes, from 0 on")
