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
    ratio = size / max(height, width)
    resized_width, resized_height = (max(1, round(side * ratio)) for side in (width, height))
    left, top = ((size - side) // 2 for side in (resized_width, resized_height))
    square = np.full((size, size, 3), PADDING, dtype=np.uint8)
    resized = cv2.resize(image, (resized_width, resized_height), interpolation=cv2.INTER_LINEAR)
    square[top : top + resized_height, left : left + resized_width] = resized
    return square, Placement(width, height, resized_width, resized_height, left, top)
