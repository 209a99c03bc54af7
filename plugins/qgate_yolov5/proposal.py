"""What `qgate init` writes for YOLOv5 checkpoints."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from qgate_yolov5.checkpoint import read_checkpoint

if TYPE_CHECKING:
    from pathlib import Path

    from qgate_yolov5.checkpoint import Checkpoint

_P6_STRIDE = 64


def propose_model(weights: Path) -> dict[str, Any]:
    """Propose the loader's keys, at the size of the images that the network was trained on. Raises `ModelError`."""
    return {"loader": "yolov5", "weights": weights, "image_size": _image_size(read_checkpoint(weights))}


def _image_size(checkpoint: Checkpoint) -> int:
    """Give the size that training used: the user's, rounded up; else the one that such networks are published for."""
    stride = max(checkpoint.strides)
    if checkpoint.training_size is None:
        return 1280 if stride >= _P6_STRIDE else 640
    return math.ceil(checkpoint.training_size / stride) * stride
