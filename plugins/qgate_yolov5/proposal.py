"""What `qgate init` writes for YOLOv5 checkpoints."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qgate_yolov5.checkpoint import read_checkpoint

if TYPE_CHECKING:
    from pathlib import Path

_P6_STRIDE = 64


def propose_model(weights: Path) -> dict[str, Any]:
    """Propose the loader's keys, at the size that networks of this depth are published for. Raises `ModelError`."""
    checkpoint = read_checkpoint(weights)
    image_size = 1280 if max(checkpoint.strides) >= _P6_STRIDE else 640
    return {"loader": "yolov5", "weights": weights, "image_size": image_size}
