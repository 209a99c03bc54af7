"""Average precision of many re-weightings of the same images, in one pass."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    Bools = NDArray[np.bool_]
    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]

# COCO's points of recall, 0 to 1. Made by this product, as numpy's linspace does in pycocotools: 7 * 0.01 is above
# 0.07 in the last bit, and a recall of 7/100 does not reach it.
_STEP, _NUM_POINTS = 0.01, 101

_TILE = 1 << 15  # elements of a working array
_FEW_ROWS = 32


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
        seen = all_seen[np.searchsorted(positions, here)]
        _subtract_ignored(seen, weights, image, np.flatnonzero(ignored_here), here)
        hits = weights[image[here]]
        _accumulate(np.add, hits)
        total += _interpolate(hits, seen, num_targets)
    return np.where(num_targets > 0, total / len(found), np.nan)


def _interpolate(hits: Floats, seen: Floats, num_targets: Floats) -> Floats:
    """Average the precision over points of recall; `hits` and `seen` are (true positives, rows). Overwrites `seen`."""
    total, reached = np.zeros_like(num_targets), np.zeros((1, len(num_targets)))
    seen += np.spacing(1.0)  # pycocotools' guard against 0/0
    precision = np.divide(hits, seen, out=seen)
    _accumulate(np.maximum, precision[::-1])
    divisor = np.where(num_targets > 0, num_targets, 1.0)
    for tile in _tiles(*hits.shape):
        reached = np.concatenate([reached[-1:], _points_up_to(hits[tile] / divisor)])
        total += np.einsum("kr,kr->r", reached[1:] - reached[:-1], precision[tile])
    return total / _NUM_POINTS


def _tiles(height: int, width: int) -> Iterator[slice]:
    """Cut rows into tiles that stay in the cache: larger temporary arrays cost ten times their arithmetic."""
    step = max(1, _TILE // width)
    return (slice(start, start + step) for start in range(0, height, step))


def _points_up_to(recall: Floats) -> Floats:
    """Count the points of recall that are not above `recall`: those below the nearest one, and perhaps that one."""
    nearest = np.rint(recall * (_NUM_POINTS - 1))
    return nearest + 1 + np.floor(recall - nearest * _STEP)


def _cumulative_weights(weights: Floats, image: Ints, positions: Ints) -> Floats:
    """Sum the weights of the detections up to and with each of `positions`: (positions, rows)."""
    sums = np.empty((len(positions), weights.shape[1]))
    start = 0
    for row, end in zip(sums, (positions + 1).tolist(), strict=True):
        np.add.reduce(weights.take(image[start:end], axis=0), axis=0, out=row)
        start = end
    _accumulate(np.add, sums)
    return sums


def _subtract_ignored(seen: Floats, weights: Floats, image: Ints, ignored: Ints, positions: Ints) -> None:
    """Take the weights of the `ignored` detections before each of `positions` from `seen`, in place."""
    if len(ignored):
        sums = np.concatenate([np.zeros((1, weights.shape[1])), weights[image[ignored]]])
        _accumulate(np.add, sums)
        seen -= sums[np.searchsorted(ignored, positions)]


def _accumulate(operation: np.ufunc, values: Floats) -> None:
    """Accumulate along the first axis, in place."""
    if values.shape[1] < _FEW_ROWS:
        operation.accumulate(values, axis=0, out=values)
        return
    for before, row in pairwise(values):  # on long rows four times as fast as `accumulate`
        operation(before, row, out=row)
