"""pycocotools on the same masks, and random masks to give it."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np
from coco_reference import Records, evaluated
from pycocotools import mask as coco_mask

from qgate_segmentation.masks import InstanceDetections, InstanceTargets, Masks, run_lengths

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pycocotools.cocoeval import COCOeval

Image = tuple[InstanceDetections, InstanceTargets]
HEIGHT, WIDTH = 120, 160


def coco_mask_evaluation(images: Iterable[Image], num_classes: int) -> COCOeval:
    """Run `COCOeval` with `iouType="segm"` on images in the order given; the same one may be there several times."""
    records: Records = []
    annotations: Records = []
    results: Records = []
    for image_id, (detections, targets) in enumerate(images, start=1):
        records.append({"id": image_id, "height": HEIGHT, "width": WIDTH})
        for index, mask in enumerate(targets.masks.encoded()):
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": int(targets.classes[index]),
                    "segmentation": mask,
                    "area": float(targets.areas[index]),
                    "bbox": coco_mask.toBbox(mask).tolist(),
                    "iscrowd": int(targets.crowd[index]),
                }
            )
        for index, mask in enumerate(detections.masks.encoded()):
            score, label = float(detections.scores[index]), int(detections.classes[index])
            results.append({"image_id": image_id, "category_id": label, "segmentation": mask, "score": score})
    return evaluated(records, annotations, results, num_classes, "segm")


def decoded(mask: dict[str, object]) -> np.ndarray:
    """Decode run lengths: bool (H, W)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pycocotools has not followed numpy 2
        return coco_mask.decode(mask).astype(bool)


def random_images(seed: int, count: int, num_classes: int) -> list[Image]:
    """Draw images with targets, detections near them, and detections of nothing; some images are empty."""
    rng = np.random.default_rng(seed)
    return [_random_image(rng, num_classes, int(rng.integers(0, 7)), int(rng.integers(0, 15))) for _ in range(count)]


def _random_image(rng: np.random.Generator, num_classes: int, num_targets: int, num_detections: int) -> Image:
    ellipses = [_random_ellipse(rng) for _ in range(num_targets)]
    classes = rng.integers(0, num_classes, num_targets)
    near = rng.integers(0, num_targets, num_detections) if num_targets else np.zeros(0, int)
    guessed = [ellipses[index] * rng.normal(1, 0.08, 4) for index in near]
    guessed += [_random_ellipse(rng) for _ in range(num_detections // 2)]
    labels = np.concatenate([classes[near], rng.integers(0, num_classes, num_detections // 2)])
    targets, detections = _masks(ellipses), _masks(guessed)
    areas = targets.areas() * rng.uniform(0.8, 1.2, num_targets)
    return (
        InstanceDetections(
            _boxes(detections).astype(np.float32), rng.random(len(labels), dtype=np.float32), labels, masks=detections
        ),
        InstanceTargets(_boxes(targets), classes, rng.random(num_targets) < 0.15, areas, masks=targets),
    )


def _random_ellipse(rng: np.random.Generator) -> np.ndarray:
    """Give centre x, centre y and both radii."""
    return np.concatenate([rng.uniform((20, 20), (WIDTH - 20, HEIGHT - 20)), rng.uniform(6, 60, 2)])


def _masks(ellipses: Iterable[np.ndarray]) -> Masks:
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    inside = [((columns - x) / a) ** 2 + ((rows - y) / b) ** 2 <= 1 for x, y, a, b in ellipses]
    return Masks(HEIGHT, WIDTH, tuple(map(run_lengths, inside)))


def _boxes(masks: Masks) -> np.ndarray:
    boxes = np.array([coco_mask.toBbox(mask) for mask in masks.encoded()]).reshape(-1, 4)
    return np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)
