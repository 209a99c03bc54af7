"""Measure how often the 95% interval of a drop covers the truth, for each way of making an interval.

A population of images is simulated, detector-like: classes of falling frequency that come in groups, images that are
hard or easy as a whole, false alarms, and an int8 arm that shares most of float32's fate but jitters its boxes and
scores and loses some detections. The population's own drop is the truth. An experiment draws a set of images from it,
with replacement, and makes intervals of 1,000 resamples of that set. "gate" is what the gate uses.

    python benchmarks/coverage.py --experiments 500 --output coverage.json
"""

from __future__ import annotations

import argparse
import json
import os
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import lru_cache, partial
from pathlib import Path
from statistics import NormalDist

os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")

import numpy as np

from qgate.engine.figures import Comparison
from qgate.statistics import resamples
from qgate_detection.boxes import Detections, Targets
from qgate_detection.metrics import MeanAveragePrecision, MeanIoU

CONFIDENCE = 0.95
POPULATION = 6000
FOUND_SHARE, FALSE_OF_PRESENT_SHARE = (
    0.85,
    0.7,
)  # targets that are found; images whose false alarms are of their classes
NORMAL = NormalDist()
IMAGE_SIDE = 640
METRICS = {"map": MeanAveragePrecision, "iou": MeanIoU}


@dataclass(frozen=True)
class Harm:
    """What quantization does to detections: the share lost, noise of scores (logits) and of boxes (share of a side)."""

    lost: float
    score_noise: float
    box_noise: float


HARMS = {"slight": Harm(0.005, 0.05, 0.005), "mild": Harm(0.02, 0.15, 0.02), "strong": Harm(0.12, 0.4, 0.06)}


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

    def truth(self, name: str, where: str) -> float:
        """Give the population's drop."""
        everything = np.arange(len(self.images))
        return float(drops(self.metrics(name, everything), np.ones((1, len(everything))), where)[0])

    def _image(self, rng: np.random.Generator, harm: Harm) -> tuple[Targets, Detections, Detections]:
        hardness = rng.normal()
        present = rng.choice(len(self.names), min(1 + rng.poisson(0.9), len(self.names)), replace=False, p=self._shares)
        classes = np.repeat(present, 1 + rng.geometric(0.35, len(present)) // 2)
        boxes = draw_boxes(rng, len(classes))
        targets = Targets(boxes, classes, np.zeros(len(classes), dtype=bool), areas(boxes))
        logits = rng.normal(0.6 - 0.8 * hardness, 1.2, len(classes))
        found = rng.random(len(classes)) < FOUND_SHARE
        num_false = rng.poisson(6)
        alike = rng.random() < FALSE_OF_PRESENT_SHARE
        false_classes = rng.choice(present if alike else len(self.names), num_false)
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


def drops(arms: tuple[MeanAveragePrecision | MeanIoU, ...], weights: np.ndarray, where: str = "-") -> np.ndarray:
    """Give float32 minus int8 for each row of weights."""
    before, after = (arm.compute(weights, None if where == "-" else {"class": where}) for arm in arms)
    return before - after


@dataclass(frozen=True)
class Setting:
    """What is simulated, and how many images an experiment draws."""

    metric: str
    classes: int
    harm: str
    images: int
    where: str = "-"  # a class, or "-" for all


SETTINGS = [
    Setting("map", 20, "mild", 128),
    Setting("map", 20, "slight", 128),
    Setting("map", 80, "mild", 128),
    Setting("map", 10, "mild", 64),
    Setting("map", 80, "mild", 512),
    Setting("iou", 20, "mild", 128),
    Setting("map", 20, "mild", 128, "class 3"),
    Setting("map", 20, "strong", 128),
]


def intervals(
    point: float, resampled: np.ndarray, left_out: np.ndarray, halves: np.ndarray
) -> dict[str, tuple[float, float]]:
    """Make an interval in other ways; `left_out` is the drop without each image, `halves` that of random halves."""
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(resampled, [tail, 1 - tail])
    return {
        "percentile": (low, high),
        "basic": (2 * point - high, 2 * point - low),
        "bca": bca(point, resampled, left_out, tail),
        "halves": tuple(np.quantile(halves, [tail, 1 - tail])),
    }


def bca(point: float, resampled: np.ndarray, left_out: np.ndarray, tail: float) -> tuple[float, float]:
    """Make the bias-corrected and accelerated interval: Efron and Tibshirani (1993), section 14.3."""
    below = np.mean(resampled < point) + np.mean(resampled == point) / 2
    bias = NORMAL.inv_cdf(np.clip(below, 1 / len(resampled), 1 - 1 / len(resampled)))
    distance = left_out.mean() - left_out
    squares = (distance**2).sum()
    acceleration = (distance**3).sum() / (6 * squares**1.5) if squares else 0.0
    shifted = [bias + NORMAL.inv_cdf(level) for level in (tail, 1 - tail)]
    levels = [NORMAL.cdf(bias + z / (1 - acceleration * z)) for z in shifted]
    low, high = np.quantile(resampled, levels)
    return low, high


@lru_cache(maxsize=1)
def population(classes: int, harm: str) -> Population:
    """Make the population of a setting, once a process."""
    return Population(POPULATION, classes, HARMS[harm], seed=1)


def experiment(setting: Setting, seed: int) -> dict[str, object]:
    """Draw a set of images; give its drop and all intervals."""
    rng, images = np.random.default_rng([2, seed]), setting.images
    arms = population(setting.classes, setting.harm).metrics(setting.metric, rng.integers(0, POPULATION, images))
    each = np.ones((images, images))
    of_drop = partial(drops, arms, where=setting.where)
    point = float(of_drop(each[:1])[0])
    resampled = np.concatenate([of_drop(rows) for rows in resamples(images, seed)])
    halves = of_drop(rng.permuted(np.tile(np.arange(images) % 2.0, (1000, 1)), axis=1))
    found = (np.nan_to_num(values, nan=point) for values in (resampled, of_drop(each - np.eye(images)), halves))
    return {"point": point, "gate": gate_interval(arms, setting, seed), **intervals(point, *found)}


def gate_interval(
    arms: tuple[MeanAveragePrecision | MeanIoU, ...], setting: Setting, seed: int
) -> tuple[float, float] | None:
    """Give the interval of the gate itself; None where it gives none."""
    comparison = Comparison(*arms, setting.images, CONFIDENCE, seed)
    if setting.where == "-":
        return comparison.figures()["drop_interval"]
    return comparison.figures([{"class": setting.where}])["limited_slices"][0]["drop_interval"]


def run(setting: Setting, experiments: int, pool: ProcessPoolExecutor) -> list[dict[str, object]]:
    """Run all experiments of a setting; give a row for each way of making an interval."""
    start = time.perf_counter()
    truth = population(setting.classes, setting.harm).truth(setting.metric, setting.where)
    found = list(pool.map(partial(experiment, setting), range(experiments), chunksize=10))
    points = np.array([item.pop("point") for item in found])
    shared = {**asdict(setting), "truth": truth, "mean": np.nanmean(points), "sd": np.nanstd(points, ddof=1)}
    seconds = time.perf_counter() - start
    return [
        {**shared, "interval": way, **summary([item[way] for item in found], truth), "seconds": seconds}
        for way in found[0]
    ]


def summary(found: list[tuple[float, float] | None], truth: float) -> dict[str, float]:
    """Give the share of intervals that cover the truth, that lie above and below it, and their mean width."""
    bounds = np.array([interval for interval in found if interval is not None])  # None is inconclusive, not wrong
    above, below = float(np.mean(bounds[:, 0] > truth)), float(np.mean(bounds[:, 1] < truth))
    width = float(np.mean(bounds[:, 1] - bounds[:, 0]))
    return {"coverage": 1 - above - below, "above": above, "below": below, "width": width}


def main() -> None:
    """Print a table row by row and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--experiments", type=int, default=500, help="of each setting")
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    parser.add_argument("--output", type=Path, help="write the figures as JSON")
    arguments = parser.parse_args()
    rows: list[dict[str, object]] = []
    with ProcessPoolExecutor(arguments.workers) as pool:
        for setting in SETTINGS:
            new = run(setting, arguments.experiments, pool)
            if not rows:
                print(" ".join(f"{key:>10}" for key in new[0]))
            for row in new:
                cells = (f"{value:10.4f}" if isinstance(value, float) else f"{value:>10}" for value in row.values())
                print(" ".join(cells), flush=True)
            rows += new
    if arguments.output:
        document = {"experiments": arguments.experiments, "confidence": CONFIDENCE, "numpy": np.__version__}
        arguments.output.write_text(json.dumps({**document, "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
