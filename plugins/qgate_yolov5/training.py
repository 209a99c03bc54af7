"""What training needs of YOLOv5: batches of changed pictures, and the two losses on raw maps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from qgate_detection.augmentation import Augmentation, make_pictures
from qgate_yolov5.loss import DetectionLoss, LossWeights

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from qgate.protocols import Sample
    from qgate_detection.augmentation import Picture


def as_batch(squares: Sequence[NDArray[np.uint8]]) -> Tensor:
    """Make a float32 batch (N, 3, S, S), values in [0, 1], of uint8 RGB squares (S, S, 3)."""
    planes = np.ascontiguousarray(np.stack(squares).transpose(0, 3, 1, 2))
    return torch.from_numpy(planes).float().div_(255)


@dataclass(frozen=True)
class Augmenter:
    """Makes training batches of samples: the same square that inference sees, changed as `Augmentation` says."""

    image_size: int

    def __call__(
        self, samples: Sequence[Sample], rng: np.random.Generator, options: Augmentation | None
    ) -> tuple[tuple[Tensor], Tensor]:
        """Give the inputs, a float32 batch (N, 3, S, S), and the targets as `DetectionLoss` takes them.

        Without options the defaults of `Augmentation` hold. Samples without a target give no boxes.
        """
        pictures = make_pictures(samples, self.image_size, options or Augmentation(), rng)
        targets = [_as_rows(index, picture) for index, picture in enumerate(pictures)]
        return (as_batch([picture.pixels for picture in pictures]),), torch.from_numpy(np.concatenate(targets))


def _as_rows(index: int, picture: Picture) -> NDArray[np.float32]:
    """Give a picture's boxes as rows of index, class, centre x, centre y, width, height."""
    low, high = picture.boxes[:, :2], picture.boxes[:, 2:]
    labels = picture.classes[:, None]
    rows = np.concatenate((np.full_like(labels, index), labels, (low + high) / 2, high - low), axis=1)
    return rows.astype(np.float32)


class SupervisedLoss:
    """The published loss with the published weights, for a model's head and image size.

    `anchors` (levels, anchors, 2) are in units of the level's stride.
    """

    def __init__(self, anchors: Tensor, strides: Sequence[int], num_classes: int, image_size: int) -> None:
        pixels = anchors * torch.tensor(strides).view(-1, 1, 1)
        weights = LossWeights().scaled(len(strides), num_classes, image_size)
        self.loss = DetectionLoss(pixels, strides, num_classes, weights)

    def __call__(self, raw_maps: Sequence[Tensor], targets: Tensor) -> Tensor:
        """Give the sum of the loss's terms, a scalar, a mean over the batch."""
        return self.loss(raw_maps, targets.to(raw_maps[0].device)).total
