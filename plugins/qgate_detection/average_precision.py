"""Average precision of many re-weightings of the same images, in one pass."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    Bools = NDArray[np.bool_]
    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]

# Made as pycocotools makes them: 0.07 and linspace's seventh point differ in the last bit, and so do precisions.
RECALL_POINTS = np.linspace(0.0, 1.0, 101)

# Elements of a working array: about what stays in a core's second-level cache.
_BLOCK = 1 << 18


@dataclass(frozen=True, eq=False)
class ClassMatches:
    """The detections of one class by falling score, and what became of them at T thresholds of overlap.

    `image` (D,) is the column of the weights, `found` and `ignored` are (T, D), `num_targets` (images,) counts the
    targets that are to be found.
    """

    image: Ints
    found: Bools
    ignored: Bools
    num_targets: Floats


def average_precision(matches: ClassMatches, weights: Floats) -> Floats:
    """Give COCO's average precision, the mean over thresholds, for each column of `weights` (images, rows).

    Interpolated at 101 points of recall, as pycocotools' `COCOeval.accumulate`; an image of weight n counts
    as n copies of it do there, one after the other. NaN where a row has no target.

    Between true positives precision only falls, so it is computed at true positives alone; the weight of all
    detections down to each of them is the same for every threshold, but for those that only some thresholds ignore.
    """
    num_targets = matches.num_targets @ weights
    counts = ~matches.ignored.all(axis=0)
    image, found, ignored = matches.image[counts], matches.found[:, counts], matches.ignored[:, counts]
    positions = np.flatnonzero(found.any(axis=0))
    all_seen = _cumulative_weights(weights, image, positions)
    total = np.zeros(weights.shape[1])
    for found_here, ignored_here in zip(found, ignored, strict=True):
        here = np.flatnonzero(found_here)
        rows = np.searchsorted(positions, here)
        not_seen = _weights_before(weights, image, np.flatnonzero(ignored_here), here)
        for block in _blocks(len(here), len(total)):
            seen = all_seen[rows, block] - not_seen[:, block]
            hits = np.cumsum(weights[image[here], block], axis=0)
            total[block] += _interpolate(hits, seen, num_targets[block])
    return np.where(num_targets > 0, total / len(found), np.nan)


def _interpolate(hits: Floats, seen: Floats, num_targets: Floats) -> Floats:
    """Average the precision over the points of recall; all arguments by true positive (K) and row, (K, rows)."""
    precision = hits / (seen + np.spacing(1.0))
    envelope = np.maximum.accumulate(precision[::-1], axis=0)[::-1]
    points_reached = _points_up_to(hits / np.where(num_targets > 0, num_targets, 1.0))
    points_reached[1:] -= points_reached[:-1].copy()
    total: Floats = np.einsum("kr,kr->r", points_reached, envelope)
    return total / len(RECALL_POINTS)


def _points_up_to(recall: Floats) -> Floats:
    """Count the points of recall that are not above `recall`: those below the nearest one, and perhaps that one."""
    nearest = np.rint(recall * (len(RECALL_POINTS) - 1))
    return nearest + (RECALL_POINTS.take(nearest.astype(np.intp)) <= recall)


def _cumulative_weights(weights: Floats, image: Ints, positions: Ints) -> Floats:
    """Sum the weights of the detections up to and with each of `positions`: (positions, rows)."""
    sums = np.empty((len(positions), weights.shape[1]))
    start, running = 0, np.zeros(weights.shape[1])
    for row, end in zip(sums, (positions + 1).tolist(), strict=True):
        np.add(running, weights[image[start:end]].sum(axis=0), out=row)
        start, running = end, row
    return sums


def _weights_before(weights: Floats, image: Ints, chosen: Ints, positions: Ints) -> Floats:
    """Sum the weights of the `chosen` detections before each of `positions`: (positions, rows), or zeros (1, rows)."""
    if len(chosen) == 0:
        return np.zeros((1, weights.shape[1]))
    sums = np.cumsum(np.concatenate([np.zeros((1, weights.shape[1])), weights[image[chosen]]]), axis=0)
    return sums[np.searchsorted(chosen, positions)]


def _blocks(height: int, width: int) -> Iterator[slice]:
    """Cut `width` columns into blocks of about `_BLOCK` elements."""
    if height == 0:
        return
    step = max(1, _BLOCK // height)
    for start in range(0, width, step):
        yield slice(start, start + step)
