"""What `qgate init --weights` finds out about YOLOv5 checkpoints."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import yolov5_yamls as yamls
from yolov5_reference import pickled_checkpoint

from qgate.errors import ModelError
from qgate_yolov5.checkpoint import save_checkpoint
from qgate_yolov5.network import YoloV5
from qgate_yolov5.proposal import propose_model

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(("deepest_stride", "image_size"), [(32, 640), (64, 1280)], ids=["P5", "P6"])
def test_the_image_size_follows_the_depth(deepest_stride: int, image_size: int, tmp_path: Path) -> None:
    halvings = deepest_stride.bit_length() - 1
    yaml = {
        "nc": 2,
        "depth_multiple": 1.0,
        "width_multiple": 1.0,
        "anchors": [[10, 13]],
        "backbone": [[-1, 1, "Conv", [8, 3, 2]] for _ in range(halvings)],
        "head": [[[halvings - 1], 1, "Detect", ["nc", "anchors"]]],
    }
    save_checkpoint(tmp_path / "net.pt", YoloV5.from_yaml(yaml), yaml=yaml, names=["cat", "dog"])
    assert propose_model(tmp_path / "net.pt") == {
        "loader": "yolov5",
        "weights": tmp_path / "net.pt",
        "image_size": image_size,
    }


@pytest.mark.parametrize(("trained_at", "image_size"), [(320, 320), (500, 512), (16, 32)])
def test_the_image_size_is_that_of_the_training(trained_at: int, image_size: int, tmp_path: Path) -> None:
    """As YOLOv5 does it: rounded up to what the network can take."""
    yaml, path = yamls.p5("n", classes=1), tmp_path / "best.pt"
    pickled_checkpoint(YoloV5.from_yaml(yaml), yaml, path, image_size=trained_at)
    assert propose_model(path)["image_size"] == image_size


def test_an_official_checkpoint_is_recognised(assets: Path) -> None:
    weights = assets / "yolov5n.pt"
    assert propose_model(weights) == {"loader": "yolov5", "weights": weights, "image_size": 640}


def test_other_weights_are_refused_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"\x08\x07\x12\x07pytorch")
    with pytest.raises(ModelError, match=r"model\.onnx: not a file that torch\.save wrote"):
        propose_model(tmp_path / "model.onnx")
