"""pycocotools on the same boxes, and random boxes to give it."""

from __future__ import annotations

import contextlib
import io
from typing import TYPE_CHECKING

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from qgate_detection.boxes import Detections, Targets

if TYPE_CHECKING:
    from collections.abc import Iterable

Image = tuple[Detections, Targets]
Records = list[dict[str, object]]


def coco_evaluation(images: Iterable[Image], num_classes: int) -> COCOeval:
    """Run `COCOeval` on images in the order given; the same image may be there several times."""
    records: Records = []
    annotations: Records = []
    results: Records = []
    for image_id, (detections, targets) in enumerate(images, start=1):
        records.append({"id": image_id})
        for box, label, crowd, area in zip(targets.boxes, targets.classes, targets.crowd, targets.areas, strict=True):
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": int(label),
                    "bbox": _corner_and_size(box),
                    "area": float(area),
                    "iscrowd": int(crowd),
                }
            )
        for box, score, label in zip(detections.boxes, detections.scores, detections.classes, strict=True):
            results.append(
                {"image_id": image_id, "category_id": int(label), "bbox": _corner_and_size(box), "score": float(score)}
            )
    return evaluated(records, annotations, results, num_classes, "bbox")


def evaluated(records: Records, annotations: Records, results: Records, num_classes: int, kind: str) -> COCOeval:
    """Run `COCOeval` of one kind on what COCO's files hold, without a word on standard output."""
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        categories = [{"id": label} for label in range(num_classes)]
        truth.dataset = {"info": {}, "images": records, "annotations": annotations, "categories": categories}
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(results), kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation


def coco_class_average_precision(evaluation: COCOeval, label: int) -> float:
    return float(evaluation.eval["precision"][:, :, label, 0, -1].mean())


def random_image(
    rng: np.random.Generator, num_classes: int, *, num_targets: int, num_detections: int, crowds: float = 0.1
) -> Image:
    """Draw targets, detections near them with some of the wrong class, and detections of nothing."""
    boxes = _random_boxes(rng, num_targets)
    classes = rng.integers(0, num_classes, num_targets)
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]) * rng.uniform(0.4, 1.0, num_targets)
    targets = Targets(boxes, classes, rng.random(num_targets) < crowds, areas)
    near = rng.integers(0, max(num_targets, 1), num_detections if num_targets else 0)
    jitter = rng.normal(0, 0.08, (len(near), 4)) * np.tile(boxes[near, 2:] - boxes[near, :2], 2)
    nowhere = _random_boxes(rng, num_detections // 2)
    guessed = np.concatenate([boxes[near] + jitter, nowhere]).astype(np.float32)
    labels = np.concatenate([classes[near], rng.integers(0, num_classes, len(nowhere))])
    wrong = rng.random(len(labels)) < 0.1
    labels = np.where(wrong, rng.integers(0, num_classes, len(labels)), labels)
    return Detections(guessed, rng.random(len(guessed), dtype=np.float32), labels), targets


def random_images(seed: int, count: int, num_classes: int) -> list[Image]:
    """Draw images, some of them empty, some with more than 100 detections of a class."""
    rng = np.random.default_rng(seed)
    return [
        random_image(
            rng, num_classes, num_targets=int(rng.integers(0, 12)), num_detections=int(rng.choice([0, 5, 30, 300]))
        )
        for _ in range(count)
    ]


def _random_boxes(rng: np.random.Generator, count: int) -> np.ndarray:
    corner = rng.uniform(0, 400, (count, 2))
    return np.concatenate([corner, corner + rng.lognormal(4, 1, (count, 2))], axis=1)


def _corner_and_size(box: np.ndarray) -> list[float]:
    x1, y1, x2, y2 = (float(value) for value in box)
    return [x1, y1, x2 - x1, y2 - y1]
