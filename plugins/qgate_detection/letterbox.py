"""Fit an image of any shape into a square, and take boxes back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

PADDING = 114  # the grey that YOLO models are trained with

# Images are read and resized in threads of the engine, beside torch's: a second pool below them only costs.
cv2.setNumThreads(1)


@dataclass(frozen=True)
class Placement:
    """Where an image of `width` x `height` lies in its square: resized, and moved right and down. In pixels."""

    width: int
    height: int
    resized_width: int
    resized_height: int
    left: int
    top: int

    def apply(self, boxes: NDArray[Any]) -> NDArray[np.float64]:
        """Take boxes (N, 4), corners in pixels of the image, to pixels of the square; they may leave it."""
        scale_x, scale_y = self.resized_width / self.width, self.resized_height / self.height
        placed: NDArray[np.float64] = boxes * np.array([scale_x, scale_y] * 2) + np.array([self.left, self.top] * 2)
        return placed

    def undo(self, boxes: NDArray[Any]) -> NDArray[np.float32]:
        """Take boxes (N, 4), corners in pixels of the square, to pixels of the image, clipped to it."""
        scale_x, scale_y = self.width / self.resized_width, self.height / self.resized_height
        offset = np.array([self.left, self.top] * 2, dtype=np.float32)
        scale = np.array([scale_x, scale_y] * 2, dtype=np.float32)
        limit = np.array([self.width, self.height] * 2, dtype=np.float32)
        corners: NDArray[np.float32] = (boxes.astype(np.float32) - offset) * scale
        clipped: NDArray[np.float32] = np.clip(corners, 0, limit)
        return clipped


def letterbox(image: NDArray[np.uint8], size: int) -> tuple[NDArray[np.uint8], Placement]:
    """Resize an image (H, W, 3) so that its longer side is `size`, and centre it on a grey square (size, size, 3).

    Bilinear, keeps the aspect ratio, also enlarges. An odd pixel of padding goes right or below.
    """
    height, width = image.shape[:2]
    resized_width, resized_height = fitted(width, height, size)
    placement = Placement(
        width, height, resized_width, resized_height, (size - resized_width) // 2, (size - resized_height) // 2
    )
    square = grey_square(size)
    paste(image, placement, square)
    return square, placement


def fitted(width: int, height: int, size: float) -> tuple[int, int]:
    """Give the width and height, whole pixels, of an image whose longer side becomes `size`."""
    ratio = size / max(height, width)
    return max(1, round(width * ratio)), max(1, round(height * ratio))


def grey_square(size: int) -> NDArray[np.uint8]:
    """Give a square (size, size, 3) of padding."""
    return np.full((size, size, 3), PADDING, dtype=np.uint8)


def paste(image: NDArray[np.uint8], placement: Placement, canvas: NDArray[np.uint8]) -> None:
    """Resize an image and put it in its place on `canvas` (H, W, 3), in place; what lies beyond the canvas is lost."""
    shape = placement.resized_width, placement.resized_height
    resized = cv2.resize(image, shape, interpolation=cv2.INTER_LINEAR)
    (top, bottom), (left, right) = (
        (max(start, 0), max(min(start + extent, room), 0))
        for start, extent, room in zip((placement.top, placement.left), shape[::-1], canvas.shape[:2], strict=True)
    )
    inside = resized[
        top - placement.top : max(bottom - placement.top, 0), left - placement.left : max(right - placement.left, 0)
    ]
    canvas[top:bottom, left:right] = inside
