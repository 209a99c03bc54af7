"""Class-aware non-maximum suppression."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np

from qgate_detection.boxes import Detections

if TYPE_CHECKING:
    from numpy.typing import NDArray

# As in YOLOv5's validation: more candidates than this, by score, are not looked at.
MAX_CANDIDATES = 30_000

# Boxes looked at before asking whether there are enough; the fastest of 256 to 4096 on COCO's images.
_PORTION = 1024


def detect(candidates: NDArray[np.float32], confidence: float, iou: float, max_detections: int) -> Detections:
    """Give the detections that `choose` chooses."""
    chosen, scores, classes = choose(candidates, confidence, iou, max_detections)
    return Detections(candidates[chosen, :4], scores, classes)


def choose(
    candidates: NDArray[np.float32], confidence: float, iou: float, max_detections: int
) -> tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.int64]]:
    """Choose detections among decoded candidates (N, 5 + classes), as `decoding.decode` gives them.

    Gives the candidate, the score and the class of each.

    Every pair of a candidate and a class with objectness * probability > `confidence` is a detection of its own
    (the "multi-label" rule of YOLOv5's validation); the best 30,000 go through `suppress`.
    All values must be finite, and `confidence` from 0 to 1.
    """
    scores = candidates[:, 4:5] * candidates[:, 5:]
    pairs = np.flatnonzero(scores > confidence)
    pairs = pairs[_best(scores.ravel()[pairs])]
    cells, classes = np.divmod(pairs, scores.shape[1])
    kept = suppress(candidates[cells, :4], classes, iou, max_detections)
    return cells[kept], scores.ravel()[pairs[kept]], classes[kept]


def _best(scores: NDArray[np.float32]) -> NDArray[np.int64]:
    """Give the indices of the best `MAX_CANDIDATES` scores, the best first, of equal ones the first first.

    Floats that are not negative rise with their bits. So one integer holds the score, inverted, above the index: plain
    sorting of integers, which numpy vectorizes, takes an eighth of the time of a stable `argsort`.
    """
    keys: NDArray[np.uint64] = (~scores.view(np.uint32)).astype(np.uint64) << np.uint64(32)
    keys |= np.arange(len(scores), dtype=np.uint64)
    if len(keys) > MAX_CANDIDATES:
        keys = np.partition(keys, MAX_CANDIDATES)[:MAX_CANDIDATES]
    keys.sort()
    indices: NDArray[np.int64] = (keys & np.uint64(0xFFFFFFFF)).astype(np.int64)
    return indices


def suppress(
    boxes: NDArray[np.float32], classes: NDArray[np.int64], iou: float, max_detections: int
) -> NDArray[np.int64]:
    """Give the indices of the boxes to keep, rising, at most `max_detections`; the boxes come by falling score.

    Greedy: a box is kept unless one that is kept already has its class and overlaps it by more than `iou`
    (intersection over union). Goes through the boxes in portions, and stops when enough are kept; those that are kept
    go through again before the next portion, and stay, for they do not overlap each other.
    """
    kept = np.arange(0)
    for start in range(0, len(boxes), _PORTION):
        portion = np.concatenate([kept, np.arange(start, min(start + _PORTION, len(boxes)))])
        kept = portion[_suppress_all(boxes[portion], classes[portion], iou)]
        if len(kept) >= max_detections:
            break
    return kept[:max_detections]


def _suppress_all(boxes: NDArray[np.float32], classes: NDArray[np.int64], iou: float) -> NDArray[np.int64]:
    order = np.argsort(classes, kind="stable")
    sizes = np.bincount(classes)
    ends = np.cumsum(sizes)
    corner_and_size = boxes[order].astype(np.float64)
    corner_and_size[:, 2:] -= corner_and_size[:, :2]
    kept = [
        order[start:end][_suppress_class(corner_and_size[start:end].tolist(), iou)]
        for start, end in zip((ends - sizes).tolist(), ends.tolist(), strict=True)
        if end > start
    ]
    return np.sort(np.concatenate(kept))


def _suppress_class(corner_and_size: list[list[float]], iou: float) -> NDArray[np.int64]:
    falling = range(len(corner_and_size), 0, -1)  # stands for the scores
    return np.array(cv2.dnn.NMSBoxes(corner_and_size, falling, 0.0, iou), dtype=np.int64)
