"""What a detector predicts in one image, and what is really there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Detections:
    """Predicted boxes of one image.

    `boxes` is float32 (N, 4), corners x1, y1, x2, y2 in pixels of the original image; `scores` is float32 (N,);
    `classes` is int64 (N,), indices of the model's class names. Raises `ValueError` where lengths differ.
    """

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    classes: NDArray[np.int64]

    def __post_init__(self) -> None:
        _check_lengths(self.boxes, self.scores, self.classes)

    def __len__(self) -> int:
        return len(self.boxes)

    def without_class(self, index: int) -> Detections:
        """Give the detections of all other classes."""
        return self.chosen(self.classes != index)

    def chosen(self, kept: NDArray[np.bool_]) -> Detections:
        """Give the detections that `kept` (N,) marks."""
        return Detections(self.boxes[kept], self.scores[kept], self.classes[kept])

    def areas(self) -> NDArray[np.float64]:
        """Give the areas of the boxes in square pixels, (N,)."""
        boxes = self.boxes.astype(np.float64)
        areas: NDArray[np.float64] = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
        return areas

    def as_targets(self) -> Targets:
        """Take all of them for what is there."""
        crowd = np.zeros(len(self), dtype=bool)
        return Targets(self.boxes.astype(np.float64), self.classes, crowd, self.areas())


@dataclass(frozen=True, eq=False)
class Targets:
    """Labelled boxes of one image.

    `boxes` is float64 (N, 4), corners x1, y1, x2, y2 in pixels; `classes` is int64 (N,); `crowd` is bool (N,), True
    for a region of many objects, in which detections count neither for nor against the model; `areas` is float64
    (N,), the objects' areas in square pixels by which they are called small, medium or large. Raises `ValueError`
    where lengths differ.
    """

    boxes: NDArray[np.float64]
    classes: NDArray[np.int64]
    crowd: NDArray[np.bool_]
    areas: NDArray[np.float64]

    def __post_init__(self) -> None:
        _check_lengths(self.boxes, self.classes, self.crowd, self.areas)

    def __len__(self) -> int:
        return len(self.boxes)


def _check_lengths(boxes: NDArray[Any], *others: NDArray[Any]) -> None:
    if boxes.ndim != 2 or boxes.shape[1] != 4 or any(other.shape != boxes.shape[:1] for other in others):  # noqa: PLR2004 - (N, 4)
        shapes = ", ".join(str(array.shape) for array in (boxes, *others))
        raise ValueError(f"boxes must have shape (N, 4) and everything else (N,); got {shapes}")


def iou_matrix(detections: NDArray[Any], targets: NDArray[np.float64], crowd: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Give the overlap of every detection (N, 4) with every target (M, 4), both as corners: shape (N, M).

    Intersection over union, by pycocotools; for a crowd target, intersection over the detection's own area.
    """
    from pycocotools import mask

    if len(detections) == 0 or len(targets) == 0:
        return np.zeros((len(detections), len(targets)))
    overlaps = mask.iou(_corner_and_size(detections), _corner_and_size(targets), crowd.astype(np.uint8))
    return np.asarray(overlaps, dtype=np.float64)


def _corner_and_size(boxes: NDArray[Any]) -> NDArray[np.float64]:
    boxes = boxes.astype(np.float64)
    return np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)


def _box_overlaps(detections: Detections, targets: Targets) -> NDArray[np.float64]:
    return iou_matrix(detections.boxes, targets.boxes, targets.crowd)


@dataclass(frozen=True)
class Shape:
    """What of an object is compared: its box, or what a plugin has in its place.

    `overlaps` gives the overlap of every detection with every target of an image, (N, M); `areas` gives the
    detections' areas in square pixels, (N,).
    """

    overlaps: Callable[[Any, Any], NDArray[np.float64]]
    areas: Callable[[Any], NDArray[np.float64]]


BOX = Shape(_box_overlaps, Detections.areas)
