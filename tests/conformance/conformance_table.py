"""What the suites need to know of each first-party plugin: what a metric compares, what a loader loads, and so on.

A new metric, loader or data set needs a line here; observers, calibrators, backends and reporters need none.
"""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import cv2
import mask_reference
import numpy as np
import onnx
import torch
import yolov5_yamls as yamls
from coco_reference import random_images

from qgate.engine.factory import FactoryOptions
from qgate.testing.project import TOY
from qgate_classification.image_folder import ImageFolderOptions
from qgate_classification.scores import ClassScores, ClassTarget
from qgate_detection.boxes import Detections
from qgate_detection.coco import CocoOptions
from qgate_detection.yolo import YoloOptions
from qgate_onnx.loader import OnnxOptions
from qgate_segmentation.index_png import IndexPngOptions
from qgate_segmentation.label_map import NO_CLASS, LabelMap
from qgate_yolov5.checkpoint import save_checkpoint
from qgate_yolov5.loader import YoloV5Options
from qgate_yolov5.network import YoloV5

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

CLASSES = ("car", "cat", "cow", "dog")
MORE_CLASSES = (*CLASSES, "elk", "fox")


def boxes_and_targets() -> list[tuple[Any, Any]]:
    return random_images(0, 8, len(CLASSES) - 1)  # no image has a dog


def boxes_and_boxes() -> list[tuple[Any, Any]]:
    random = np.random.default_rng(0)
    return [(of_int8(before, random), before) for before, _ in boxes_and_targets()]


def masks_and_targets() -> list[tuple[Any, Any]]:
    return mask_reference.random_images(0, 8, len(CLASSES) - 1)


def scores_and_classes() -> list[tuple[Any, Any]]:
    random, count = np.random.default_rng(0), len(MORE_CLASSES)
    scores = random.random((16, count), dtype=np.float32)
    return [(ClassScores(row), ClassTarget(int(index % (count - 1)), count)) for index, row in enumerate(scores)]


def label_maps() -> list[tuple[Any, Any]]:
    random = np.random.default_rng(0)
    pairs = []
    for _ in range(8):
        labels = random.integers(0, len(CLASSES) - 1, (9, 7)).astype(np.uint8)
        guessed = np.where(random.random(labels.shape) < 0.6, labels, random.permuted(labels)).astype(np.uint8)
        labels[random.random(labels.shape) < 0.2] = NO_CLASS
        pairs.append((LabelMap(guessed), LabelMap(labels)))
    return pairs


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


def onnx_file(folder: Path) -> OnnxOptions:
    weight = np.random.default_rng(0).normal(size=(4, 3, 3, 3)).astype(np.float32)
    image = onnx.helper.make_tensor_value_info("image", onnx.TensorProto.FLOAT, [1, 3, 8, 8])
    found = onnx.helper.make_tensor_value_info("found", onnx.TensorProto.FLOAT, [1, 4, 6, 6])
    node = onnx.helper.make_node("Conv", ["image", "weight"], ["found"])
    graph = onnx.helper.make_graph([node], "net", [image], [found], [onnx.numpy_helper.from_array(weight, "weight")])
    opset = onnx.helper.make_opsetid("", 17)
    onnx.save(onnx.helper.make_model(graph, opset_imports=[opset], ir_version=8), folder / "net.onnx")
    return OnnxOptions(folder / "net.onnx")


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


def image_folder(folder: Path) -> ImageFolderOptions:
    for name, photograph in zip(("cat", "dog"), photographs(), strict=True):
        (folder / name).mkdir()
        assert cv2.imwrite(str(folder / name / "0.png"), photograph)
    return ImageFolderOptions(folder)


def index_png(folder: Path) -> IndexPngOptions:
    (folder / "masks").mkdir()
    for index, photograph in enumerate(photographs()):
        assert cv2.imwrite(str(folder / "masks" / f"{index}.png"), photograph[..., 0] % 2)
    return IndexPngOptions(images(folder), folder / "masks")


def coco(folder: Path) -> CocoOptions:
    box = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [4, 4, 20, 20], "area": 400, "iscrowd": 0}
    box["segmentation"] = [[4, 4, 24, 4, 24, 24, 4, 24]]
    document = {
        "images": [
            {"id": index + 1, "file_name": f"{index}.png", "height": height, "width": width}
            for index, (height, width, _) in enumerate(photograph.shape for photograph in photographs())
        ],
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
    "mask_map": (CLASSES, masks_and_targets),
    "mask_map50": (CLASSES, masks_and_targets),
    "miou": (CLASSES, label_maps),
    "top1": (MORE_CLASSES, scores_and_classes),
    "top5": (MORE_CLASSES, scores_and_classes),
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
    "onnx": (onnx_file, planes),
    "yolov5": (yolov5, photographs),
}

# data set: the model's class names, and options
DATASETS: dict[str, tuple[Sequence[str], Callable[[Path], Any]]] = {
    "coco": (("cat", "dog"), coco),
    "coco_masks": (("cat", "dog"), coco),
    "image_folder": (("cat", "dog"), image_folder),
    "index_png": (("cat", "dog"), index_png),
    "factory": ((), toy("data")),
    "yolo": (("cat", "dog"), yolo),
}
