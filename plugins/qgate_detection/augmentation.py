"""Training pictures from stored ones: mirrored, shifted, scaled, in other colours, and four in one.

The operations are those that detectors are usually trained with; the mosaic is that of Bochkovskiy et al., "YOLOv4"
(2020). Everything is a function of the samples and the random generator.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import cv2
import numpy as np

from qgate_detection.letterbox import Placement, fitted, grey_square, paste

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from qgate.protocols import Sample
    from qgate_detection.boxes import Targets

    Image: TypeAlias = NDArray[np.uint8]

_NARROWEST = 2.0  # pixels; a box that is less wide or high after clipping shows nothing
_LEAST_VISIBLE = 0.1  # of a box's area; of a smaller part nobody can tell what it is
_HALF_TURN = 180  # hues of an 8-bit HSV image, which OpenCV counts in steps of two degrees
_MOSAIC_CENTRE = (0.25, 0.75)  # shares of the side between which the four images meet


@dataclass(frozen=True)
class Augmentation:
    """How far training pictures differ from the stored ones; 0 turns a kind of change off.

    `flip` and `mosaic` are probabilities: of mirroring left and right, which is wrong where that changes a class, and
    of four images in one. An image is enlarged by up to a share of `scale`, or reduced by it, and moved by up to a
    share of `translate` of the side. `hue` is the greatest turn, as a share of the whole circle; saturation and
    value are multiplied by up to 1 + `saturation` and 1 + `value`, or 1 minus that.
    Raises `ValueError` for a share that is not from 0 to 1.
    """

    flip: float = 0.5
    scale: float = 0.25
    translate: float = 0.1
    hue: float = 0.015
    saturation: float = 0.5
    value: float = 0.3
    mosaic: float = 0.0

    def __post_init__(self) -> None:
        for name, share in vars(self).items():
            if not 0 <= share <= 1:
                raise ValueError(f"{name} = {share}; expected a number from 0 to 1")
        if self.scale == 1:
            raise ValueError("scale = 1 would reduce images to nothing; expected less than 1")


@dataclass(frozen=True, eq=False)
class Picture:
    """A square training picture (size, size, 3), uint8 RGB, with its boxes.

    `boxes` is (N, 4), corners in pixels, clipped to the picture; `classes` is (N,).
    """

    pixels: Image
    boxes: NDArray[np.float64]
    classes: NDArray[np.int64]


def make_pictures(
    samples: Sequence[Sample], size: int, options: Augmentation, rng: np.random.Generator
) -> list[Picture]:
    """Make one training picture of each sample; the other three images of a mosaic are drawn from `samples` too.

    `Sample.input` is uint8 RGB (H, W, 3); `Sample.target` is `Targets`, or None where nothing is known, which gives no
    boxes. Crowds are left out: theirs are not boxes of one object.
    """
    return [_picture(sample, samples, size, options, rng) for sample in samples]


def _picture(
    sample: Sample, others: Sequence[Sample], size: int, options: Augmentation, rng: np.random.Generator
) -> Picture:
    if rng.random() < options.mosaic:
        chosen = [sample, *(others[index] for index in rng.integers(len(others), size=3))]
        picture = _mosaic(chosen, size, options, rng)
    else:
        picture = _single(sample, size, options, rng)
    if rng.random() < options.flip:
        picture = _mirrored(picture)
    return Picture(_recoloured(picture.pixels, options, rng), picture.boxes, picture.classes)


def _single(sample: Sample, size: int, options: Augmentation, rng: np.random.Generator) -> Picture:
    """Letterbox an image, larger or smaller and beside the middle."""
    height, width = sample.input.shape[:2]
    resized = fitted(width, height, size * _gain(options, rng))
    shift_x, shift_y = rng.uniform(-options.translate, options.translate, 2) * size
    left, top = (size - resized[0]) // 2 + round(shift_x), (size - resized[1]) // 2 + round(shift_y)
    canvas = grey_square(size)
    boxes, classes = _place(sample, Placement(width, height, *resized, left, top), canvas)
    return Picture(canvas, boxes, classes)


def _mosaic(samples: Sequence[Sample], size: int, options: Augmentation, rng: np.random.Generator) -> Picture:
    """Put four images around a point, each with one corner on it and at the size that it has alone."""
    canvas = grey_square(size)
    column, row = (round(share * size) for share in rng.uniform(*_MOSAIC_CENTRE, 2))
    parts = []
    for index, sample in enumerate(samples):
        below, right = divmod(index, 2)
        rows = slice(row, size) if below else slice(row)
        columns = slice(column, size) if right else slice(column)
        height, width = sample.input.shape[:2]
        resized = fitted(width, height, size * _gain(options, rng))
        left, top = 0 if right else column - resized[0], 0 if below else row - resized[1]
        boxes, classes = _place(sample, Placement(width, height, *resized, left, top), canvas[rows, columns])
        parts.append((boxes + np.array([column * right, row * below] * 2), classes))
    boxes, classes = (np.concatenate(part) for part in zip(*parts, strict=True))
    return Picture(canvas, boxes, classes)


def _gain(options: Augmentation, rng: np.random.Generator) -> float:
    return float(rng.uniform(1 - options.scale, 1 + options.scale))


def _place(sample: Sample, placement: Placement, canvas: Image) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Paste an image onto a canvas; gives the boxes that are still seen, clipped, and their classes."""
    paste(sample.input, placement, canvas)
    targets: Targets | None = sample.target
    if targets is None:
        return np.zeros((0, 4)), np.zeros(0, np.int64)
    placed = placement.apply(targets.boxes[~targets.crowd])
    height, width = canvas.shape[:2]
    clipped = np.clip(placed, 0, np.array([width, height] * 2))
    seen = _still_seen(placed, clipped)
    return clipped[seen], targets.classes[~targets.crowd][seen]


def _still_seen(placed: NDArray[np.float64], clipped: NDArray[np.float64]) -> NDArray[np.bool_]:
    whole, rest = placed[:, 2:] - placed[:, :2], clipped[:, 2:] - clipped[:, :2]
    seen: NDArray[np.bool_] = (rest >= _NARROWEST).all(1) & (rest.prod(1) >= _LEAST_VISIBLE * whole.prod(1))
    return seen


def _mirrored(picture: Picture) -> Picture:
    size = picture.pixels.shape[1]
    boxes = picture.boxes.copy()
    boxes[:, [0, 2]] = size - picture.boxes[:, [2, 0]]
    return Picture(np.ascontiguousarray(picture.pixels[:, ::-1]), boxes, picture.classes)


def _recoloured(pixels: Image, options: Augmentation, rng: np.random.Generator) -> Image:
    """Turn the hue and multiply saturation and value, on bytes; without any change the bytes stay as they are."""
    turn, saturation, value = rng.uniform(-1, 1, 3) * (options.hue, options.saturation, options.value)
    if turn == saturation == value == 0:
        return pixels
    levels = np.arange(256)
    tables = np.empty((1, 256, 3), np.uint8)
    tables[0, :, 0] = (levels + round(turn * _HALF_TURN)) % _HALF_TURN
    tables[0, :, 1] = np.clip(np.rint(levels * (1 + saturation)), 0, 255)
    tables[0, :, 2] = np.clip(np.rint(levels * (1 + value)), 0, 255)
    changed = cv2.LUT(cv2.cvtColor(pixels, cv2.COLOR_RGB2HSV), tables)
    return np.asarray(cv2.cvtColor(changed, cv2.COLOR_HSV2RGB), np.uint8)
