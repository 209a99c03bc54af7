"""What the suites need to know of each first-party plugin: what a metric compares, what a loader loads, and so on.

A new metric, loader or data set needs a line here; observers, calibrators, backends and reporters need none.
"""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import torch
import yolov5_yamls as yamls
from coco_reference import random_images

from qgate.engine.factory import FactoryOptions
from qgate.testing.project import TOY
from qgate_detection.boxes import Detections
from qgate_detection.coco import CocoOptions
from qgate_detection.yolo import YoloOptions
from qgate_yolov5.checkpoint import save_checkpoint
from qgate_yolov5.loader import YoloV5Options
from qgate_yolov5.network import YoloV5

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

CLASSES = ("car", "cat", "cow", "dog")


def boxes_and_targets() -> list[tuple[Any, Any]]:
    return random_images(0, 8, len(CLASSES) - 1)  # no image has a dog


def boxes_and_boxes() -> list[tuple[Any, Any]]:
    random = np.random.default_rng(0)
    return [(of_int8(before, random), before) for before, _ in boxes_and_targets()]


def of_int8(before: Detections, random: np.random.Generator) -> Detections:
    """Give what a second arm may detect: scores a little off, some boxes lost, and some elsewhere."""
    kept = random.random(len(before)) < 0.8
    boxes = before.boxes[kept] + 40 * (random.random((kept.sum(), 1), dtype=np.float32) < 0.2)
    scores = before.scores[kept] * random.uniform(0.8, 1, kept.sum()).astype(np.float32)
    return Detections(boxes.astype(np.float32), scores, before.classes[kept])


def yolov5(folder: Path) -> YoloV5Options:
    yaml = {**yamls.p5("n", classes=2), "width_multiple": 0.125, "depth_multiple": 0.1}
    save_checkpoint(folder / "net.pt", YoloV5.from_yaml(yaml), yaml=yaml, names=("cat", "dog"))
    return YoloV5Options(folder / "net.pt", image_size=64)


def toy(function: str) -> Callable[[Path], FactoryOptions]:
    def options(folder: Path) -> FactoryOptions:
        (folder / "toy.py").write_text(TOY, encoding="utf-8")
        sys.path.insert(0, str(folder))  # a fixture puts it back
        return FactoryOptions(f"toy:{function}")

    return options


def photographs() -> list[Any]:
    random = np.random.default_rng(0)
    return [random.integers(0, 256, (*size, 3), dtype=np.uint8) for size in ((48, 64), (70, 33))]


def planes() -> list[Any]:
    return list(torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0)))


def images(folder: Path) -> Path:
    (folder / "images").mkdir()
    for index, photograph in enumerate(photographs()):
        assert cv2.imwrite(str(folder / "images" / f"{index}.png"), photograph)
    return folder / "images"


def yolo(folder: Path) -> YoloOptions:
    images(folder)
    (folder / "labels").mkdir()
    (folder / "labels" / "0.txt").write_text("1 0.5 0.5 0.5 0.5\n", encoding="utf-8")
    (folder / "data.yaml").write_text(f"path: {folder}\nval: images\nnames: [cat, dog]\n", encoding="utf-8")
    return YoloOptions(folder / "data.yaml", "val")


def coco(folder: Path) -> CocoOptions:
    box = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [4, 4, 20, 20], "area": 400, "iscrowd": 0}
    document = {
        "images": [{"id": index + 1, "file_name": f"{index}.png"} for index in range(2)],
        "annotations": [box],
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
    }
    (folder / "annotations.json").write_text(json.dumps(document), encoding="utf-8")
    return CocoOptions(images(folder), folder / "annotations.json")


# metric: class names, and pairs of prediction and target
METRICS: dict[str, tuple[Sequence[str], Callable[[], list[tuple[Any, Any]]]]] = {
    "map": (CLASSES, boxes_and_targets),
    "map50": (CLASSES, boxes_and_targets),
    "iou": (CLASSES, boxes_and_targets),
    "agreement": (CLASSES, boxes_and_boxes),
    "invented": (CLASSES, boxes_and_boxes),
}

# observer: how far bounds may move, as a share of the range, when values come in other batches; else not at all
STREAMING: dict[str, float | None] = {
    "moving_average": None,
    "percentile": 0.001,  # bins are as wide as the first batch made them, and within one values count as spread evenly
    "mse": 0.01,  # the error is flat around its least value, so a little moves the bounds more than a bin
    "entropy": 0.1,  # the divergence is flatter still
}

# loader: options, and inputs of its `preprocess`
LOADERS: dict[str, tuple[Callable[[Path], Any], Callable[[], list[Any]]]] = {
    "factory": (toy("model"), planes),
    "yolov5": (yolov5, photographs),
}

# data set: the model's class names, and options
DATASETS: dict[str, tuple[Sequence[str], Callable[[Path], Any]]] = {
    "coco": (("cat", "dog"), coco),
    "factory": ((), toy("data")),
    "yolo": (("cat", "dog"), yolo),
}
