"""Which detection finds which target: the rule of COCO, for all images, classes and thresholds at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from qgate_detection.boxes import BOX

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from qgate_detection.boxes import Detections, Shape, Targets

    Bools = NDArray[np.bool_]
    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class BoxPool:
    """The boxes of many images in flat arrays: D detections, G targets, P overlapping pairs of one class.

    Detections are ordered by class, and in a class by falling score; equal scores keep the order of the images.
    `rank` (D,) counts the detections of the same image and class before this one. `*_image` are indices of images.
    Pairs hold indices of detections and targets, and their overlap.
    """

    image: Ints
    label: Ints
    score: NDArray[np.float32]
    rank: Ints
    area: Floats
    target_image: Ints
    target_label: Ints
    target_crowd: Bools
    target_area: Floats
    pair_detection: Ints
    pair_target: Ints
    pair_overlap: Floats


@dataclass(frozen=True, eq=False)
class Matches:
    """What became of each detection at each of T thresholds.

    `pair` (T, D) is the index of the pair that was matched, or -1. `ignored` (T, D) marks detections that count neither
    as true nor as false, `target_ignored` (G,) targets that need not be found.
    """

    pair: Ints
    ignored: Bools
    target_ignored: Bools

    @property
    def found(self) -> Bools:
        """Mark the true positives, (T, D)."""
        return (self.pair >= 0) & ~self.ignored


def pool_boxes(
    images: Sequence[tuple[Detections, Targets]],
    *,
    min_overlap: float,
    max_detections: int | None = None,
    shape: Shape = BOX,
) -> BoxPool:
    """Gather the objects of all images, and the pairs whose `shape` overlaps by at least `min_overlap`.

    Of each image and class only the `max_detections` of highest score are kept.
    """
    detections, targets = [pair[0] for pair in images], [pair[1] for pair in images]
    image, target_image = _image_indices(detections), _image_indices(targets)
    label = _join([item.classes for item in detections], np.int64)
    score = _join([item.scores for item in detections], np.float32)
    order = np.lexsort((-score, label))
    rank = _occurrence(image[order] * (label.max(initial=0) + 1) + label[order])
    if max_detections is not None:
        order, rank = order[rank < max_detections], rank[rank < max_detections]
    position = np.full(len(image), -1)
    position[order] = np.arange(len(order))
    pair_detection, pair_target, pair_overlap = _pairs(images, min_overlap, shape)
    kept = position[pair_detection] >= 0
    return BoxPool(
        image=image[order],
        label=label[order],
        score=score[order],
        rank=rank,
        area=_join([shape.areas(item) for item in detections], np.float64)[order],
        target_image=target_image,
        target_label=_join([item.classes for item in targets], np.int64),
        target_crowd=_join([item.crowd for item in targets], np.bool_),
        target_area=_join([item.areas for item in targets], np.float64),
        pair_detection=position[pair_detection[kept]],
        pair_target=pair_target[kept],
        pair_overlap=pair_overlap[kept],
    )


def match(pool: BoxPool, thresholds: Floats, area_range: tuple[float, float]) -> Matches:
    """Match as pycocotools' `COCOeval.evaluateImg` does, at T thresholds of overlap.

    In each image and class the detections choose by falling score: the target with the largest overlap that is
    still free, and one that is ignored (a crowd, or of an area outside `area_range`) only where no other is left. A
    detection without a target is ignored where its own area is outside the range.
    """
    target_ignored = pool.target_crowd | _outside(pool.target_area, area_range)
    pair = np.full((len(thresholds), len(pool.image)), -1)
    taken = np.zeros((len(thresholds), len(pool.target_image)), dtype=bool)
    for pairs, starts in _rounds(pool, target_ignored):
        target = pool.pair_target[pairs]
        open_to_match = (pool.pair_overlap[pairs] >= thresholds[:, None]) & ~taken[:, target]
        best = np.minimum.reduceat(np.where(open_to_match, np.arange(len(pairs)), len(pairs)), starts, axis=1)
        threshold, chooser = np.nonzero(best < len(pairs))
        chosen = pairs[best[threshold, chooser]]
        pair[threshold, pool.pair_detection[chosen]] = chosen
        # A crowd takes in any number of detections.
        taken[threshold, pool.pair_target[chosen]] = ~pool.target_crowd[pool.pair_target[chosen]]
    matched_ignored = np.append(target_ignored[pool.pair_target], False)[pair]  # -1, unmatched: the appended one
    return Matches(pair, matched_ignored | ((pair < 0) & _outside(pool.area, area_range)), target_ignored)


def _rounds(pool: BoxPool, target_ignored: Bools) -> list[tuple[Ints, Ints]]:
    """Group pairs into rounds in which no two detections compete: one detection of each image and class.

    Gives for each round the pairs, those of one detection together and the one it prefers first (of equal
    overlaps the last, as in pycocotools), and where each detection's pairs start.
    """
    rank = pool.rank[pool.pair_detection]
    preference = (-pool.pair_target, -pool.pair_overlap, target_ignored[pool.pair_target])
    order = np.lexsort((*preference, pool.pair_detection, rank))
    rounds = np.split(order, np.flatnonzero(np.diff(rank[order])) + 1) if len(order) else []
    return [(pairs, _run_starts(pool.pair_detection[pairs])) for pairs in rounds]


def _run_starts(values: Ints) -> Ints:
    return np.flatnonzero(np.append(True, values[1:] != values[:-1])[: len(values)])


def _occurrence(keys: Ints) -> Ints:
    """Count, for each element, the equal ones before it."""
    order = np.argsort(keys, kind="stable")
    starts = _run_starts(keys[order])
    occurrence = np.empty(len(keys), dtype=np.int64)
    occurrence[order] = np.arange(len(keys)) - np.repeat(starts, np.diff(np.append(starts, len(keys))))
    return occurrence


def _pairs(images: Sequence[tuple[Detections, Targets]], min_overlap: float, shape: Shape) -> tuple[Ints, Ints, Floats]:
    """Find the pairs of detection and target that share an image and a class: their flat indices and overlaps."""
    found: list[tuple[Ints, Ints, Floats]] = []
    detection_offset = target_offset = 0
    for detections, targets in images:
        overlap = shape.overlaps(detections, targets)
        detection, target = np.nonzero(
            (overlap >= min_overlap) & (detections.classes[:, None] == targets.classes[None, :])
        )
        found.append((detection + detection_offset, target + target_offset, overlap[detection, target]))
        detection_offset += len(detections)
        target_offset += len(targets)
    detection_parts, target_parts, overlap_parts = zip(*found, strict=True) if found else ((), (), ())
    return _join(detection_parts, np.int64), _join(target_parts, np.int64), _join(overlap_parts, np.float64)


def _outside(area: Floats, area_range: tuple[float, float]) -> Bools:
    return (area < area_range[0]) | (area > area_range[1])


def _image_indices(items: Sequence[Detections] | Sequence[Targets]) -> Ints:
    return np.repeat(np.arange(len(items)), [len(item) for item in items])


def _join(arrays: Sequence[NDArray[Any]], dtype: type[np.generic]) -> NDArray[Any]:
    return np.concatenate([np.empty(0, dtype), *arrays]).astype(dtype, copy=False)
