"""From an image to a label map: what surrounds a network of semantic segmentation, for a factory function."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.functional import interpolate

from qgate.errors import ModelError
from qgate.protocols import LoadedModel
from qgate_detection.pixels import IMAGENET_MEAN, IMAGENET_STD, normalized, resized
from qgate_segmentation.label_map import NO_CLASS, LabelMap

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

Size = tuple[int, int]


@dataclass(frozen=True)
class Preprocessing:
    """Resizes to `height` x `width` pixels, whatever the image's shape, and normalizes."""

    height: int
    width: int
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD

    def __post_init__(self) -> None:
        if min(self.height, self.width) < 1:
            raise ValueError(f"height = {self.height} and width = {self.width} must be above 0")
        if min(self.std) <= 0:
            raise ValueError(f"std = {self.std} must be above 0")

    def __call__(self, image: NDArray[np.uint8]) -> tuple[tuple[torch.Tensor], Size]:
        """Turn an image, RGB uint8 (H, W, 3), into a batch of one, float32 (1, 3, height, width), and (H, W)."""
        pixels = resized(image, self.height, self.width)
        return (normalized(pixels, self.mean, self.std),), (image.shape[0], image.shape[1])

    def describe(self) -> dict[str, Any]:
        """Describe the input for those who deploy the model; plain JSON values."""
        return {
            "layout": "NCHW",
            "shape": [1, 3, self.height, self.width],
            "dtype": "float32",
            "color_order": "RGB",
            "resize": {"interpolation": "bilinear, antialiased", "keeps_aspect_ratio": False},
            "range": [0.0, 1.0],
            "mean": list(self.mean),
            "std": list(self.std),
        }


def label_map(output: torch.Tensor, size: Size) -> LabelMap:
    """Turn logits for a batch of one, (1, classes, h, w), into the likeliest class of each pixel of the image.

    `size` is the image's height and width; logits are interpolated to it, bilinear. Raises `ModelError`.
    """
    if output.dim() != 4 or not 1 < output.shape[1] <= NO_CLASS:  # noqa: PLR2004 - as said above
        raise ModelError(f"the output has shape {tuple(output.shape)}; expected (1, classes, h, w), 2 to 255 classes")
    if not torch.isfinite(output.sum()):
        raise ModelError("the network's output holds values that are not finite; no class can be told from them")
    logits = interpolate(output.float(), size, mode="bilinear", align_corners=False)
    return LabelMap(logits.argmax(1)[0].to(torch.uint8).numpy())


def semantic_segmenter(
    module: torch.nn.Module, preprocessing: Preprocessing, *, class_names: Sequence[str] = ()
) -> LoadedModel:
    """Surround a network with what gets images in and label maps out; for a factory function to return.

    `module` maps (N, 3, height, width) to logits (N, classes, h, w), `class_names` are in the order of its channels.
    """
    return LoadedModel(
        module=module.eval(),
        example_inputs=(torch.zeros(1, 3, preprocessing.height, preprocessing.width),),
        preprocess=preprocessing,
        postprocess=label_map,
        class_names=tuple(class_names),
        input_description={"input": preprocessing.describe(), "class_names": list(class_names)},
    )
