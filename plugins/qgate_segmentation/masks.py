"""Masks of the objects in one image, as run lengths: a mask of 640x480 pixels takes some hundred bytes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from pycocotools import mask as coco_mask

from qgate_detection.boxes import Detections, Shape, Targets

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Masks:
    """Masks of N objects, each as COCO's compressed run lengths (`counts`), of an image of `height` x `width`."""

    height: int
    width: int
    counts: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.counts)

    def chosen(self, kept: NDArray[np.bool_]) -> Masks:
        """Give the masks that `kept` (N,) marks."""
        return Masks(self.height, self.width, tuple(self.counts[index] for index in np.flatnonzero(kept)))

    def areas(self) -> NDArray[np.float64]:
        """Count each mask's pixels, (N,)."""
        return np.asarray(coco_mask.area(self.encoded()), dtype=np.float64).reshape(-1)

    def encoded(self) -> list[dict[str, Any]]:
        """Give the masks as pycocotools takes them."""
        return [{"size": [self.height, self.width], "counts": counts} for counts in self.counts]


def run_lengths(mask: NDArray[np.bool_] | NDArray[np.uint8]) -> str:
    """Encode one mask of zeros and ones, (H, W); of uint8 and in column-major order it is not copied."""
    counts: bytes = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))["counts"]
    return counts.decode("ascii")


@dataclass(frozen=True, eq=False)
class InstanceDetections(Detections):
    """Predicted boxes of one image with a mask each, in pixels of the original image."""

    masks: Masks

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_count(self.masks, len(self))

    def chosen(self, kept: NDArray[np.bool_]) -> InstanceDetections:
        """Give the detections that `kept` (N,) marks."""
        return InstanceDetections(
            self.boxes[kept], self.scores[kept], self.classes[kept], masks=self.masks.chosen(kept)
        )

    def as_targets(self) -> InstanceTargets:
        """Take all of them for what is there."""
        boxes, crowd = self.boxes.astype(np.float64), np.zeros(len(self), dtype=bool)
        return InstanceTargets(boxes, self.classes, crowd, self.masks.areas(), masks=self.masks)


@dataclass(frozen=True, eq=False)
class InstanceTargets(Targets):
    """Labelled boxes of one image with a mask each."""

    masks: Masks

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_count(self.masks, len(self))


def _check_count(masks: Masks, count: int) -> None:
    if len(masks) != count:
        raise ValueError(f"there are {len(masks)} masks for {count} boxes")


def _mask_overlaps(detections: InstanceDetections, targets: InstanceTargets) -> NDArray[np.float64]:
    """Give intersection over union by pycocotools; for a crowd, over the detection's own area. (N, M)."""
    if len(detections) == 0 or len(targets) == 0:
        return np.zeros((len(detections), len(targets)))
    crowd = targets.crowd.astype(np.uint8)
    return np.asarray(coco_mask.iou(detections.masks.encoded(), targets.masks.encoded(), crowd), dtype=np.float64)


def _mask_areas(detections: InstanceDetections) -> NDArray[np.float64]:
    return detections.masks.areas()


MASK = Shape(_mask_overlaps, _mask_areas)
