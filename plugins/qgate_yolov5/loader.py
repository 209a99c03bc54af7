"""The loader `yolov5`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch

from qgate.errors import ModelError
from qgate.protocols import LoadedModel
from qgate_detection.augmentation import Augmentation
from qgate_detection.letterbox import PADDING, letterbox
from qgate_segmentation.masks import InstanceDetections
from qgate_yolov5.checkpoint import read_checkpoint
from qgate_yolov5.decoding import decode
from qgate_yolov5.distillation import DistillationLoss
from qgate_yolov5.masks import draw_masks
from qgate_yolov5.network import build_network
from qgate_yolov5.nms import MAX_CANDIDATES, choose, detect
from qgate_yolov5.training import Augmenter, SupervisedLoss, as_batch

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from qgate_detection.boxes import Detections
    from qgate_detection.letterbox import Placement
    from qgate_yolov5.checkpoint import Checkpoint


@dataclass(frozen=True)
class YoloV5Options:
    """What `[models.X]` takes with `loader = "yolov5"`.

    `image_size` is the side of the square that images are fitted into, in pixels. `confidence`, `nms_iou` and
    `max_detections` are those of YOLOv5's validation; mAP wants a low confidence.
    """

    weights: Path
    image_size: int = 640
    confidence: float = 0.001
    nms_iou: float = 0.6
    max_detections: int = 300


@dataclass(frozen=True)
class Preprocessor:
    """Fits an image, uint8 RGB (H, W, 3), into a square: a float32 batch (1, 3, S, S) in [0, 1]."""

    image_size: int

    def __call__(self, image: NDArray[np.uint8]) -> tuple[tuple[torch.Tensor], Placement]:
        """Give the batch, and where the image lies in the square."""
        square, placement = letterbox(image, self.image_size)
        return (as_batch([square]),), placement


@dataclass(frozen=True, eq=False)
class Postprocessor:
    """Makes detections, in pixels of the original image, of the raw maps of one image."""

    anchors: torch.Tensor
    strides: tuple[int, ...]
    options: YoloV5Options

    def __call__(self, raw_maps: Sequence[torch.Tensor], placement: Placement) -> Detections:
        """Decode, suppress, and take the boxes back to the original image. Raises `ModelError` at a NaN."""
        _check_finite(raw_maps)
        options = self.options
        candidates = decode(raw_maps, self.anchors, self.strides, options.confidence).numpy()
        found = detect(candidates, options.confidence, options.nms_iou, options.max_detections)
        return type(found)(placement.undo(found.boxes), found.scores, found.classes)


@dataclass(frozen=True, eq=False)
class MaskPostprocessor(Postprocessor):
    """Makes detections with masks, in pixels of the original image, of the raw maps and prototypes of one image."""

    num_coefficients: int

    def __call__(self, outputs: Sequence[torch.Tensor], placement: Placement) -> InstanceDetections:
        """Decode, suppress, take the boxes back to the original image, draw. Raises `ModelError` at a NaN."""
        _check_finite(outputs)
        *raw_maps, prototypes = outputs
        options, end = self.options, -self.num_coefficients
        decoded = decode(raw_maps, self.anchors, self.strides, options.confidence, self.num_coefficients).numpy()
        candidates = np.ascontiguousarray(decoded[:, :end])
        chosen, scores, classes = choose(candidates, options.confidence, options.nms_iou, options.max_detections)
        boxes = placement.undo(candidates[chosen, :4])
        masks = draw_masks(prototypes[0].numpy(), decoded[chosen, end:], boxes, placement, self.strides[0] / 2)
        return InstanceDetections(boxes, scores, classes, masks=masks)


def _check_finite(outputs: Sequence[torch.Tensor]) -> None:
    if not all(torch.isfinite(output.sum()) for output in outputs):
        raise ModelError("the network's output holds values that are not finite; no detection can be made of them")


class YoloV5Loader:
    """Loads YOLOv5 v5.0-v7.0 of detection or segmentation, and the plain ones that `save_checkpoint` writes."""

    name: ClassVar[str] = "yolov5"
    Options: ClassVar[type] = YoloV5Options
    Augmentation: ClassVar[type] = Augmentation

    def load(self, options: YoloV5Options) -> LoadedModel:
        """Load a checkpoint as a float32 network with its pre- and postprocessing. Raises `ModelError`."""
        checkpoint = read_checkpoint(options.weights)
        _check(options, checkpoint)
        side, network = options.image_size, build_network(checkpoint)
        return LoadedModel(
            module=network,
            example_inputs=(torch.zeros(1, 3, side, side),),
            preprocess=Preprocessor(side),
            postprocess=_postprocessor(checkpoint, options, network.num_coefficients),
            class_names=checkpoint.names,
            input_description=_describe(options, checkpoint, network.num_coefficients),
            source_sha256=checkpoint.sha256,
            byte_scale=1 / 255,
            **({} if network.num_coefficients else _training(checkpoint, side)),
        )


def _training(checkpoint: Checkpoint, side: int) -> dict[str, Any]:
    """Give what training takes; a network that draws masks as well has other outputs and targets."""
    return {
        "supervised_loss": SupervisedLoss(checkpoint.anchors, checkpoint.strides, len(checkpoint.names), side),
        "distillation_loss": DistillationLoss(checkpoint.anchors),
        "augment": Augmenter(side),
    }


def _postprocessor(checkpoint: Checkpoint, options: YoloV5Options, num_coefficients: int) -> Postprocessor:
    if num_coefficients:
        return MaskPostprocessor(checkpoint.anchors, checkpoint.strides, options, num_coefficients)
    return Postprocessor(checkpoint.anchors, checkpoint.strides, options)


def _check(options: YoloV5Options, checkpoint: Checkpoint) -> None:
    """Check the options against each other and the checkpoint. Raises `ModelError`."""
    side, stride = options.image_size, max(checkpoint.strides)
    if side <= 0 or side % stride:
        nearest = max(round(side / stride), 1) * stride
        raise ModelError(
            f"image_size = {side} is not a multiple of the largest stride, {stride}; try {nearest}",
            path=options.weights,
        )
    for name in ("confidence", "nms_iou"):
        if not 0 <= getattr(options, name) <= 1:
            raise ModelError(f"{name} = {getattr(options, name)}; expected a number from 0 to 1", path=options.weights)
    if options.max_detections < 1:
        raise ModelError(f"max_detections = {options.max_detections}; expected at least 1", path=options.weights)


def _describe(options: YoloV5Options, checkpoint: Checkpoint, num_coefficients: int) -> dict[str, Any]:
    """Describe input and output for those who deploy the model; plain JSON values."""
    side = options.image_size
    return {
        "input": {
            "layout": "NCHW",
            "shape": [1, 3, side, side],
            "dtype": "float32",
            "color_order": "RGB",
            "range": [0.0, 1.0],
            "resize": {"method": "letterbox", "interpolation": "bilinear", "padding": PADDING, "centred": True},
        },
        "output": {
            "maps": "one a stride: (N, anchors * (5 + classes), height / stride, width / stride); raw, before sigmoid",
            "channels_per_anchor": ["x", "y", "w", "h", "objectness", "one per class"],
            "strides": list(checkpoint.strides),
            "anchors_in_pixels": _anchors_in_pixels(checkpoint),
            "centre": "(2 * sigmoid(xy) - 0.5 + cell) * stride",
            "size": "(2 * sigmoid(wh)) ** 2 * anchor",
            "score": "sigmoid(objectness) * sigmoid(class)",
            **(_describe_masks(checkpoint, num_coefficients) if num_coefficients else {}),
        },
        "class_names": list(checkpoint.names),
        "postprocessing": {
            "confidence": options.confidence,
            "nms": "class-aware, every class of a box above the confidence on its own",
            "nms_iou": options.nms_iou,
            "max_candidates": MAX_CANDIDATES,
            "max_detections": options.max_detections,
        },
    }


def _describe_masks(checkpoint: Checkpoint, num_coefficients: int) -> dict[str, Any]:
    """Describe what a network of segmentation gives beside, and instead of, what one of detection does."""
    stride = checkpoint.strides[0] // 2
    maps = f"one a stride: (N, anchors * (5 + classes + {num_coefficients}), height / stride, width / stride); raw"
    per_anchor = ["x", "y", "w", "h", "objectness", "one per class", f"{num_coefficients} mask coefficients"]
    return {
        "maps": maps,
        "channels_per_anchor": per_anchor,
        "prototypes": f"the last output: (N, {num_coefficients}, height / {stride}, width / {stride})",
        "mask": "sigmoid(coefficients @ prototypes), interpolated bilinear, > 0.5, within the box",
    }


def _anchors_in_pixels(checkpoint: Checkpoint) -> list[list[list[float]]]:
    pixels = checkpoint.anchors * torch.tensor(checkpoint.strides).view(-1, 1, 1)
    return [[[round(side, 3) for side in pair] for pair in level] for level in pixels.tolist()]
