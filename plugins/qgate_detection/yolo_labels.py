"""YOLO's text labels: a line is a class and a normalized box or polygon."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from qgate.errors import DataError
from qgate_detection.boxes import Targets
from qgate_detection.images import read_text

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Labels are rounded, some to three digits: a box may stick out of its image by that, about a pixel of 640.
_ROUNDING = 0.002
_BOX_COLUMNS = 5
_POLYGON_COLUMNS = 7  # a class and three points at least


@dataclass(frozen=True, eq=False)
class YoloLabels:
    """The labels of one image: classes (N,), and boxes (N, 4) as corners in shares of width and height."""

    classes: NDArray[np.int64]
    boxes: NDArray[np.float64]

    @classmethod
    def nothing(cls) -> YoloLabels:
        """Give the labels of an image of background."""
        return cls(np.zeros(0, dtype=np.int64), np.zeros((0, 4)))

    def class_indices(self) -> frozenset[int]:
        """Give the classes in the image."""
        return frozenset(self.classes.tolist())

    def targets(self, height: int, width: int) -> Targets:
        """Give the boxes in pixels; an object's area is its box's, the format knows no other and no crowds."""
        boxes = self.boxes * np.array([width, height, width, height])
        areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
        return Targets(boxes, self.classes, np.zeros(len(boxes), dtype=bool), areas)


def find_labels(image: Path) -> Path | None:
    """Find an image's label file: `labels` in place of the last folder `images` of its path, else beside the image."""
    folders = image.parent.parts
    candidates = [image.with_suffix(".txt")]
    if "images" in folders:
        last = len(folders) - 1 - folders[::-1].index("images")
        candidates.insert(0, Path(*folders[:last], "labels", *folders[last + 1 :], candidates[0].name))
    return next((path for path in candidates if path.exists()), None)


def read_labels(path: Path, num_classes: int) -> YoloLabels:
    """Read a label file; `num_classes` is 0 where it is not known. Raises `DataError` with the line.

    Lines that repeat another one count once, as in YOLOv5: no detection can find both.
    """
    lines = read_text(path).splitlines()
    rows: dict[tuple[float, ...], None] = {}
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                rows[_parse_line(line, num_classes)] = None
            except ValueError as error:
                raise DataError(str(error), path=path, line=number) from None
    table = np.array(list(rows), dtype=np.float64).reshape(-1, _BOX_COLUMNS)
    return YoloLabels(table[:, 0].astype(np.int64), table[:, 1:])


def _parse_line(line: str, num_classes: int) -> tuple[float, ...]:
    """Give class, x1, y1, x2, y2."""
    columns = line.split()
    if len(columns) != _BOX_COLUMNS and (len(columns) < _POLYGON_COLUMNS or len(columns) % 2 == 0):
        raise ValueError(f"has {len(columns)} columns; expected a class and 4 numbers, or a class and x y of a polygon")
    label, *numbers = map(_parse_number, columns)
    if not label.is_integer() or label < 0 or (num_classes and label >= num_classes):
        known = f"0 to {num_classes - 1}" if num_classes else "a whole number"
        raise ValueError(f"class {columns[0]} does not exist; expected {known}")
    corners = _box_corners(*numbers) if len(columns) == _BOX_COLUMNS else _polygon_corners(numbers)
    return (label, *_check_corners(corners))


def _parse_number(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"{text!r} is not a number")
    return number


def _box_corners(x: float, y: float, width: float, height: float) -> tuple[float, float, float, float]:
    return x - width / 2, y - height / 2, x + width / 2, y + height / 2


def _polygon_corners(numbers: list[float]) -> tuple[float, float, float, float]:
    xs, ys = numbers[0::2], numbers[1::2]
    return min(xs), min(ys), max(xs), max(ys)


def _check_corners(corners: tuple[float, float, float, float]) -> tuple[float, float, float, float]:
    x1, y1, x2, y2 = corners
    if min(corners) < -_ROUNDING or max(corners) > 1 + _ROUNDING:
        raise ValueError(
            f"the box is outside the image: x {x1:.4g} to {x2:.4g}, y {y1:.4g} to {y2:.4g}; "
            "expected shares of width and height, 0 to 1"
        )
    if x2 <= x1 or y2 <= y1:
        raise ValueError("the box has no area, so nothing can find it; remove the line or mend its size")
    return corners
