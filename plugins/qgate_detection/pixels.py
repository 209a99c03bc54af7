"""From the bytes of an image to what a network takes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn.functional import interpolate

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

# Of ImageNet's training images, RGB in [0, 1]; what published weights were trained with.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def resized(image: NDArray[np.uint8], height: int, width: int) -> torch.Tensor:
    """Resize an image, uint8 (H, W, 3), to uint8 (1, 3, height, width).

    Bilinear, and what is made smaller is averaged ("antialias"): as torchvision and Pillow do it.
    """
    planes = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1).unsqueeze(0)
    return interpolate(planes, (height, width), mode="bilinear", align_corners=False, antialias=True)


def normalized(pixels: torch.Tensor, mean: Sequence[float], std: Sequence[float]) -> torch.Tensor:
    """Turn uint8 (1, 3, H, W) into float32: scaled to [0, 1], less `mean`, over `std`, one of each a channel."""
    scaled = pixels.float().div_(255)
    return scaled.sub_(torch.tensor(mean).view(-1, 1, 1)).div_(torch.tensor(std).view(-1, 1, 1))
