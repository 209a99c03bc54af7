"""The class of each pixel of an image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

# As in PASCAL VOC and Cityscapes. Of a target's pixel: not labelled. Of a prediction's: of no class.
NO_CLASS = 255


@dataclass(frozen=True, eq=False)
class LabelMap:
    """What is predicted or labelled: uint8 (H, W), indices of the model's class names, or `NO_CLASS`.

    In pixels of the original image. Raises `ValueError` for arrays of another type or number of dimensions.
    """

    labels: NDArray[np.uint8]

    def __post_init__(self) -> None:
        if self.labels.dtype != np.uint8 or self.labels.ndim != 2:  # noqa: PLR2004 - (H, W)
            raise ValueError(f"labels must be uint8 (H, W), got {self.labels.dtype} {self.labels.shape}")

    def without_class(self, index: int) -> LabelMap:
        """Give the map with the pixels of one class as of none."""
        return LabelMap(np.where(self.labels == index, np.uint8(NO_CLASS), self.labels))
