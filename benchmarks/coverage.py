"""Measure how often the interval of a drop covers the truth, for each way of making an interval.

A population of images is simulated, detector-like: classes of falling frequency that come in groups, images that are
hard or easy as a whole, false alarms, and an int8 arm that shares most of float32's fate but jitters its boxes and
scores, loses some detections and invents others. The population's own drop is the truth. An experiment draws a set of
images from it, with replacement, and makes a 95% interval as the gate does: 1,000 resamples of the drawn set.

    python benchmarks/coverage.py --output coverage.json
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path

os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")

import numpy as np

from qgate.statistics import RESAMPLES, resamples
from qgate_detection.boxes import Detections, Targets
from qgate_detection.metrics import MeanAveragePrecision, MeanIoU

CONFIDENCE = 0.95
IMAGE_SIDE = 640
METRICS = {"map": MeanAveragePrecision, "iou": MeanIoU}


@dataclass(frozen=True)
class Harm:
    """What quantization does to detections: the share lost, noise of scores (logits) and of boxes (share of a side)."""

    lost: float
    score_noise: float
    box_noise: float


HARMS = {"none": Harm(0.0, 0.05, 0.005), "mild": Harm(0.02, 0.15, 0.02), "strong": Harm(0.12, 0.4, 0.06)}


class Population:
    """Images with what both arms predict on them."""

    def __init__(self, size: int, num_classes: int, harm: Harm, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.names = [f"class {index}" for index in range(num_classes)]
        shares = np.geomspace(1, 0.02, num_classes)
        self._shares = shares / shares.sum()
        self.images = [self._image(rng, harm) for _ in range(size)]

    def metrics(self, name: str, chosen: np.ndarray) -> tuple[MeanAveragePrecision | MeanIoU, ...]:
        """Give float32's and int8's metric over the chosen images."""
        arms = tuple(METRICS[name](self.names) for _ in range(2))
        for index in chosen:
            targets, *predictions = self.images[index]
            for arm, prediction in zip(arms, predictions, strict=True):
                arm.update(str(index), prediction, targets)
        return arms

    def truth(self, name: str) -> float:
        """Give the population's drop."""
        return float(drops(self.metrics(name, np.arange(len(self.images))), np.ones((1, len(self.images))))[0])

    def _image(self, rng: np.random.Generator, harm: Harm) -> tuple[Targets, Detections, Detections]:
        hardness = rng.normal()
        present = rng.choice(len(self.names), min(1 + rng.poisson(0.9), len(self.names)), replace=False, p=self._shares)
        classes = np.repeat(present, 1 + rng.geometric(0.35, len(present)) // 2)
        boxes = draw_boxes(rng, len(classes))
        targets = Targets(boxes, classes, np.zeros(len(classes), dtype=bool), areas(boxes))
        logits = rng.normal(0.6 - 0.8 * hardness, 1.2, len(classes))
        found = rng.random(len(classes)) < 0.85
        num_false = rng.poisson(6)
        false_classes = rng.choice(present, num_false) if rng.random() < 0.7 else rng.choice(len(self.names), num_false)
        ours = {
            "boxes": np.concatenate([jitter(rng, boxes[found], 0.07), draw_boxes(rng, num_false)]),
            "logits": np.concatenate([logits[found], rng.normal(-2.2, 1.2, num_false)]),
            "classes": np.concatenate([classes[found], false_classes]),
        }
        kept = rng.random(len(ours["logits"])) >= harm.lost
        theirs = {
            "boxes": jitter(rng, ours["boxes"][kept], harm.box_noise),
            "logits": ours["logits"][kept] + rng.normal(0, harm.score_noise, kept.sum()),
            "classes": ours["classes"][kept],
        }
        return targets, detections(**ours), detections(**theirs)


def draw_boxes(rng: np.random.Generator, count: int) -> np.ndarray:
    """Draw corners of boxes of COCO's range of sizes, (count, 4)."""
    size = rng.lognormal(4, 0.9, (count, 2)).clip(8, IMAGE_SIDE)
    corner = rng.uniform(0, 1, (count, 2)) * (IMAGE_SIDE - size)
    return np.concatenate([corner, corner + size], axis=1)


def jitter(rng: np.random.Generator, boxes: np.ndarray, share: float) -> np.ndarray:
    """Move each corner by a share of the box's sides."""
    sides = np.tile(boxes[:, 2:] - boxes[:, :2], 2)
    return boxes + rng.normal(0, 1, boxes.shape) * share * rng.gamma(2, 0.5, (len(boxes), 1)) * sides


def areas(boxes: np.ndarray) -> np.ndarray:
    """Give the boxes' areas."""
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


def detections(boxes: np.ndarray, logits: np.ndarray, classes: np.ndarray) -> Detections:
    """Make detections, scores from logits."""
    return Detections(boxes.astype(np.float32), (1 / (1 + np.exp(-logits))).astype(np.float32), classes)


def drops(arms: tuple[MeanAveragePrecision | MeanIoU, ...], weights: np.ndarray) -> np.ndarray:
    """Give float32 minus int8 for each row of weights."""
    before, after = (arm.compute(weights) for arm in arms)
    return before - after
