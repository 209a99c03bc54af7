"""From an image to class scores: what surrounds a classifier, for a factory function."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from qgate.protocols import LoadedModel
from qgate_classification.scores import ClassScores
from qgate_detection.pixels import IMAGENET_MEAN, IMAGENET_STD, normalized, resized

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Preprocessing:
    """Resizes the shorter side to `resize` pixels, cuts the central square of `crop` pixels out, normalizes.

    The defaults are those of torchvision's ImageNet weights. Raises `ValueError` where `crop` is beyond `resize`.
    """

    resize: int = 256
    crop: int = 224
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD

    def __post_init__(self) -> None:
        if not 0 < self.crop <= self.resize:
            raise ValueError(f"crop = {self.crop} must be above 0 and at most resize = {self.resize}")
        if min(self.std) <= 0:
            raise ValueError(f"std = {self.std} must be above 0")

    def __call__(self, image: NDArray[np.uint8]) -> tuple[tuple[torch.Tensor], None]:
        """Turn an image, RGB uint8 (H, W, 3), into a batch of one, float32 (1, 3, crop, crop)."""
        height, width = image.shape[:2]
        shorter = min(height, width)
        # torchvision cuts the longer side's fraction off
        pixels = resized(image, self.resize * height // shorter, self.resize * width // shorter)
        top, left = (round((side - self.crop) / 2) for side in pixels.shape[2:])
        cut = pixels[:, :, top : top + self.crop, left : left + self.crop]
        return (normalized(cut, self.mean, self.std),), None

    def describe(self) -> dict[str, Any]:
        """Describe the input for those who deploy the model; plain JSON values."""
        return {
            "layout": "NCHW",
            "shape": [1, 3, self.crop, self.crop],
            "dtype": "float32",
            "color_order": "RGB",
            "resize": {"shorter_side": self.resize, "interpolation": "bilinear, antialiased", "centre_crop": self.crop},
            "range": [0.0, 1.0],
            "mean": list(self.mean),
            "std": list(self.std),
        }


def class_scores(output: torch.Tensor, _context: Any = None) -> ClassScores:
    """Turn the output for a batch of one, (1, classes) with any dimensions of length 1 behind, into `ClassScores`."""
    return ClassScores(output.flatten(1)[0].float().numpy())


def image_classifier(
    module: torch.nn.Module, preprocessing: Preprocessing, *, class_names: Sequence[str] = ()
) -> LoadedModel:
    """Surround a classifier with what gets images in and class scores out; for a factory function to return.

    `module` maps (N, 3, crop, crop) to (N, classes), `class_names` are in the order of its outputs.
    """
    return LoadedModel(
        module=module.eval(),
        example_inputs=(torch.zeros(1, 3, preprocessing.crop, preprocessing.crop),),
        preprocess=preprocessing,
        postprocess=class_scores,
        class_names=tuple(class_names),
        input_description={"input": preprocessing.describe(), "class_names": list(class_names)},
    )
