"""Makes masks of prototypes and coefficients."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from qgate_segmentation.masks import Masks, run_lengths

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from qgate_detection.letterbox import Placement

    Floats = NDArray[np.float32]
    Ints = NDArray[np.int64]

_MIN_PROBABILITY = 0.5


def draw_masks(prototypes: Floats, coefficients: Floats, boxes: Floats, placement: Placement, stride: float) -> Masks:
    """Draw the mask of each detection in pixels of the original image.

    `prototypes` are (nm, rows, columns), a cell `stride` pixels of the network's input wide, `coefficients` (N, nm);
    `boxes` (N, 4) are corners in the original image. A cell's probability is the sigmoid of the sum of prototypes times
    coefficients; a pixel's is interpolated between the centres of cells, bilinear. A pixel is in the mask where that is
    above 0.5 and its column and row are at least the box's first corner and less than its second. Only the cells below
    the box are looked at, and one mask at a time.
    """
    masks = [_draw(prototypes, *detection, placement, stride) for detection in zip(coefficients, boxes, strict=True)]
    return Masks(placement.height, placement.width, tuple(map(run_lengths, masks)))


def _draw(
    prototypes: Floats, coefficients: Floats, box: Floats, placement: Placement, stride: float
) -> NDArray[np.uint8]:
    mask = np.zeros((placement.height, placement.width), dtype=np.uint8, order="F")
    left, top, right, bottom = np.ceil(box).astype(np.int64)
    if right <= left or bottom <= top:
        return mask
    size, resized = (placement.width, placement.height), (placement.resized_width, placement.resized_height)
    x = (np.arange(left, right) + 0.5) * (resized[0] / size[0]) + placement.left
    y = (np.arange(top, bottom) + 0.5) * (resized[1] / size[1]) + placement.top
    columns, rows = _Axis.at(x / stride, prototypes.shape[2]), _Axis.at(y / stride, prototypes.shape[1])
    cells = _sigmoid(np.tensordot(coefficients, prototypes[:, rows.window, columns.window], 1))
    mask[top:bottom, left:right] = columns.interpolate(rows.interpolate(cells.T).T) > _MIN_PROBABILITY
    return mask


@dataclass(frozen=True)
class _Axis:
    """Where pixels lie among cells along one axis: between the centres of `before` and `after`, by `share`.

    `before` and `after` count from the start of `window`, the cells that are needed.
    """

    window: slice
    before: Ints
    after: Ints
    share: Floats

    @classmethod
    def at(cls, positions: NDArray[np.float64], num_cells: int) -> _Axis:
        """Take pixels at rising positions, in cells; beyond the outermost centres all is as at these."""
        inside = (positions - 0.5).clip(0, num_cells - 1)
        before = np.floor(inside).astype(np.int64)
        after = np.minimum(before + 1, num_cells - 1)
        start = before[0]
        share = (inside - before).astype(np.float32)
        return cls(slice(start, after[-1] + 1), before - start, after - start, share)

    def interpolate(self, cells: Floats) -> Floats:
        """Interpolate along the last axis."""
        values: NDArray[np.float32] = cells[:, self.before] * (1 - self.share) + cells[:, self.after] * self.share
        return values


def _sigmoid(values: Floats) -> Floats:
    with np.errstate(over="ignore"):  # exp gives infinity, the quotient 0
        return np.reciprocal(1 + np.exp(-values))  # type: ignore[no-any-return]
