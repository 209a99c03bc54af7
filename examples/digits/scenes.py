"""Draws pictures of handwritten digits on cluttered backgrounds, and knows where each digit is.

The digits are real: scikit-learn's `load_digits`, 8x8 pixels each. All else is drawn from a random generator, so a
generator in the same state draws the same picture.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

import cv2
import numpy as np
from sklearn.datasets import load_digits  # type: ignore[import-untyped] # scikit-learn has no stubs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

Image: TypeAlias = "NDArray[np.uint8]"
FloatImage: TypeAlias = "NDArray[np.float32]"
Box: TypeAlias = tuple[int, int, int, int]
Rng: TypeAlias = np.random.Generator

IMAGE_SIZE = 192
CLASS_NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")

_VAL_FROM = 1348  # of 1797 source digits: the last quarter
_SMALLEST, _LARGEST = 20, 64
_NARROWEST = 5
_INK_THRESHOLD = 0.4
_MIDDLE_GREY = 128
# Strokes of letters that nobody takes for a digit, as corners in a unit square.
_LETTERS = (
    (((0, 1), (0.5, 0), (1, 1)), ((0.25, 0.6), (0.75, 0.6))),  # A
    (((1, 0), (0, 0), (0, 1), (1, 1)), ((0, 0.5), (0.8, 0.5))),  # E
    (((0, 0), (0, 1)), ((1, 0), (1, 1)), ((0, 0.5), (1, 0.5))),  # H
    (((0, 0), (0, 1)), ((1, 0), (0, 0.5), (1, 1))),  # K
    (((0, 1), (0, 0), (1, 1), (1, 0)),),  # N
    (((0, 0), (1, 0)), ((0.5, 0), (0.5, 1))),  # T
    (((0, 0), (0.25, 1), (0.5, 0.3), (0.75, 1), (1, 0)),),  # W
    (((0, 0), (1, 1)), ((1, 0), (0, 1))),  # X
    (((0, 0), (0.5, 0.5), (1, 0)), ((0.5, 0.5), (0.5, 1))),  # Y
)


@dataclass(frozen=True)
class Digit:
    """One source digit: `ink` is 8x8, from 0 (paper) to 1."""

    label: int
    ink: FloatImage


@dataclass(frozen=True)
class Scene:
    """A picture (height, width, 3) with its boxes (n, 4), as left, top, right, bottom pixels, and labels (n,)."""

    image: Image
    boxes: FloatImage
    labels: NDArray[np.int64]


def source_digits(split: Literal["train", "val"]) -> list[Digit]:
    """Give the source digits of one split; no digit is in both."""
    bunch = load_digits()
    wanted = slice(_VAL_FROM) if split == "train" else slice(_VAL_FROM, None)
    inks = (bunch.images[wanted] / 16).astype(np.float32)
    return [Digit(int(label), ink) for label, ink in zip(bunch.target[wanted], inks, strict=True)]


def draw_scene(digits: Sequence[Digit], rng: Rng) -> Scene:
    """Draw one picture with two to seven of `digits`, and up to three letters among them."""
    canvas = _background(rng)
    for _ in range(rng.integers(2, 6)):
        _draw_shape(canvas, rng)
    taken: list[Box] = []
    labels = []
    for _ in range(rng.integers(2, 8)):
        digit = _any_of(digits, rng)
        if _place(canvas, render(digit.ink, rng), taken, rng):
            labels.append(digit.label)
    boxes = np.array(taken, np.float32).reshape(-1, 4)
    for _ in range(rng.integers(0, 4)):
        _place(canvas, _letter(rng), taken, rng)
    return Scene(_photograph(canvas, rng), boxes, np.array(labels, np.int64))


def _any_of(digits: Sequence[Digit], rng: Rng) -> Digit:
    return digits[int(rng.integers(len(digits)))]


def _background(rng: Rng) -> FloatImage:
    """Draw a linear gradient between two colours with smooth blotches on it."""
    angle = float(rng.uniform(0, 2 * np.pi))
    steps = np.linspace(-0.7, 0.7, IMAGE_SIZE, dtype=np.float32)
    across, down = math.cos(angle) * steps[None, :], math.sin(angle) * steps[:, None]
    ramp = np.clip(across + down + 0.5, 0, 1)[..., None]
    start, end = rng.uniform(20, 235, (2, 3)).astype(np.float32)
    gradient = start + ramp * (end - start)
    cells = int(rng.integers(3, 24))
    blotches = rng.normal(0, rng.uniform(5, 30), (cells, cells, 3)).astype(np.float32)
    smooth = cv2.resize(blotches, (IMAGE_SIZE, IMAGE_SIZE), interpolation=cv2.INTER_CUBIC)
    return np.asarray(np.clip(gradient + smooth, 0, 255), np.float32)


def _draw_shape(canvas: FloatImage, rng: Rng) -> None:
    """Draw a polygon, an ellipse or a bent stroke, filled or not, in place."""
    colour = [float(value) for value in rng.uniform(0, 255, 3)]
    centre = rng.integers(0, IMAGE_SIZE, 2)
    reach = int(rng.integers(8, 60))
    thickness = int(rng.integers(1, 6))
    kind = rng.choice(["arc", "filled", "outline", "stroke"])
    if kind == "arc":
        axes = [int(axis) for axis in rng.integers(4, reach, 2)]
        sweep = float(rng.uniform(90, 360))
        cv2.ellipse(canvas, centre.tolist(), axes, float(rng.uniform(0, 180)), 0, sweep, colour, thickness, cv2.LINE_AA)
        return
    corners = (centre + rng.integers(-reach, reach + 1, (int(rng.integers(3, 6)), 2))).astype(np.int32)
    if kind == "filled":
        cv2.fillPoly(canvas, [corners], colour, cv2.LINE_AA)
    else:
        cv2.polylines(canvas, [corners], bool(kind == "outline"), colour, thickness, cv2.LINE_AA)


def render(ink: FloatImage, rng: Rng) -> FloatImage:
    """Enlarge a digit to a random height and slant; gives its opacity from 0 to 1, cropped to what is seen.

    Cubic interpolation of the grey source, then a steeper tone curve, keeps the edges smooth and a pixel wide.
    """
    scale = np.exp(rng.uniform(np.log(_SMALLEST), np.log(_LARGEST))) / len(ink)
    side = int(np.ceil(len(ink) * scale * 1.6))
    angle, slant, stretch = rng.uniform(-0.2, 0.2), rng.uniform(-0.2, 0.2), rng.uniform(0.85, 1.2)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    linear = turn @ np.array([[stretch, slant], [0, 1]]) * scale
    shift = side / 2 - linear @ np.array([len(ink) / 2 - 0.5, len(ink) / 2 - 0.5])
    warped = cv2.warpAffine(ink, np.column_stack([linear, shift]), (side, side), flags=cv2.INTER_CUBIC)
    return _crop(np.asarray(np.clip((warped - 0.2) / 0.45, 0, 1), np.float32))


def _crop(opacity: FloatImage) -> FloatImage:
    rows, columns = np.nonzero(opacity > _INK_THRESHOLD)
    if not len(rows):
        return opacity[:0, :0]
    return opacity[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]


def _letter(rng: Rng) -> FloatImage:
    """Render what has a digit's strokes and is none."""
    glyph = np.zeros((64, 64), np.uint8)
    strokes = [np.array(corners) * (rng.integers(24, 45), 52) + 6 for corners in _LETTERS[rng.integers(len(_LETTERS))]]
    for stroke in strokes:
        cv2.polylines(glyph, [stroke.astype(np.int32)], False, 255, int(rng.integers(6, 11)), cv2.LINE_AA)
    # Through 8x8 pixels, as the digits came: sharpness must not tell letters from digits.
    small = cv2.resize(glyph, (8, 8), interpolation=cv2.INTER_AREA)
    return render(np.asarray(small / 255, np.float32), rng)


def _place(canvas: FloatImage, opacity: FloatImage, taken: list[Box], rng: Rng) -> bool:
    """Paint `opacity` where there is room and note the place in `taken`; False where there is none."""
    height, width = opacity.shape
    if min(height, width) < _NARROWEST:
        return False
    for _ in range(20):
        left, top = (int(rng.integers(0, IMAGE_SIZE - extent + 1)) for extent in (width, height))
        box = (left, top, left + width, top + height)
        if not any(_overlap(box, other) for other in taken):
            _paint(canvas[top : box[3], left : box[2]], opacity, rng)
            taken.append(box)
            return True
    return False


def _overlap(box: Box, other: Box) -> bool:
    return box[0] < other[2] and other[0] < box[2] and box[1] < other[3] and other[1] < box[3]


def _paint(patch: FloatImage, opacity: FloatImage, rng: Rng) -> None:
    """Blend a colour into `patch` in place: lighter than dark ground, darker than light, by 60 to 150 grey levels."""
    ground = patch.mean(axis=(0, 1))
    contrast = rng.uniform(60, 150) * (1 if ground.mean() < _MIDDLE_GREY else -1)
    colour = np.clip(ground + contrast + rng.normal(0, 20, 3), 0, 255).astype(np.float32)
    patch += opacity[..., None] * (colour - patch)


def _photograph(canvas: FloatImage, rng: Rng) -> Image:
    """Add a camera's faults: a little blur and sensor noise."""
    blurred = cv2.GaussianBlur(canvas, (0, 0), float(rng.uniform(0.3, 0.9)))
    noise = rng.standard_normal(blurred.shape, np.float32) * np.float32(rng.uniform(1, 9))
    return np.asarray(np.clip(blurred + noise + 0.5, 0, 255), np.uint8)
