"""YOLOv5 detection models for qgate, without any of YOLOv5's own code."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qgate import hookimpl

if TYPE_CHECKING:
    from pathlib import Path

    from qgate.protocols import Loader


@hookimpl
def qgate_register_loaders() -> list[type[Loader]]:
    """Provide `loader = "yolov5"`."""
    from qgate_yolov5.loader import YoloV5Loader

    return [YoloV5Loader]


@hookimpl
def qgate_propose_model(weights: Path) -> dict[str, Any]:
    """Propose `loader = "yolov5"` for YOLOv5's checkpoints."""
    from qgate_yolov5.proposal import propose_model

    return propose_model(weights)
