"""Time 1,000 paired resamples of mAP: over a set of the size of `val128`, and over one of the size of COCO's val2017.

Both are synthetic, of COCO's density: 7.2 targets an image in 80 classes of falling frequency, 234 detections an
image at a confidence of 0.001. Two arms are resampled with the same weights, on one core. Peak memory is the process's.

    python benchmarks/bootstrap.py --output bootstrap.json
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import time
from pathlib import Path

os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")

import numpy as np

from qgate_detection.boxes import Detections, Targets
from qgate_detection.metrics import MeanAveragePrecision

NUM_CLASSES = 80
NUM_RESAMPLES = 1000
IMAGE_SIDE = 640
TARGETS_AN_IMAGE = 7.2
DETECTIONS_AN_IMAGE = 234
CROWD_SHARE, FOUND_SHARE, TWICE_SHARE = 0.01, 0.75, 0.3
# Persons are 30% of COCO's objects, the rarest class less than 0.1%.
FREQUENCIES = np.geomspace(1, 0.02, NUM_CLASSES - 1)
CLASS_SHARES = np.append(0.3, 0.7 * FREQUENCIES / FREQUENCIES.sum())


def draw_boxes(rng: np.random.Generator, count: int) -> np.ndarray:
    """Draw corners of boxes of COCO's range of sizes, (count, 4)."""
    size = rng.lognormal(4, 0.9, (count, 2)).clip(4, IMAGE_SIDE)
    corner = rng.uniform(0, 1, (count, 2)) * (IMAGE_SIDE - size)
    return np.concatenate([corner, corner + size], axis=1)


def draw_targets(rng: np.random.Generator) -> Targets:
    """Draw the targets of an image."""
    count = rng.poisson(TARGETS_AN_IMAGE)
    boxes = draw_boxes(rng, count)
    areas = 0.6 * (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    return Targets(boxes, rng.choice(NUM_CLASSES, count, p=CLASS_SHARES), rng.random(count) < CROWD_SHARE, areas)


def draw_detections(rng: np.random.Generator, targets: Targets) -> Detections:
    """Find three targets of four, some twice, and add false alarms of low score."""
    found = np.flatnonzero(rng.random(len(targets)) < FOUND_SHARE)
    found = np.concatenate([found, found[rng.random(len(found)) < TWICE_SHARE]])
    boxes = targets.boxes[found]
    jitter = rng.normal(0, 0.06, boxes.shape) * np.tile(boxes[:, 2:] - boxes[:, :2], 2)
    num_false = DETECTIONS_AN_IMAGE - len(found)
    return Detections(
        np.concatenate([boxes + jitter, draw_boxes(rng, num_false)]).astype(np.float32),
        np.concatenate([rng.beta(2, 2, len(found)), rng.beta(0.3, 8, num_false)]).astype(np.float32),
        np.concatenate([targets.classes[found], rng.choice(NUM_CLASSES, num_false, p=CLASS_SHARES)]),
    )


def make_arms(num_images: int, seed: int) -> list[MeanAveragePrecision]:
    """Simulate two arms that see the same targets."""
    rng = np.random.default_rng(seed)
    arms = [MeanAveragePrecision([f"class {index}" for index in range(NUM_CLASSES)]) for _ in range(2)]
    for image in range(num_images):
        targets = draw_targets(rng)
        for arm in arms:
            arm.update(str(image), draw_detections(rng, targets), targets)
    return arms


def measure(num_images: int) -> dict[str, float]:
    """Time the matching of both arms, and the resamples; wall time and, for a busy machine, CPU time."""
    arms = make_arms(num_images, seed=0)
    start = time.process_time()
    values = [float(arm.compute(np.ones((1, num_images)))[0]) for arm in arms]
    matched, matched_wall = time.process_time(), time.perf_counter()
    rng = np.random.default_rng(1)
    weights = rng.multinomial(num_images, np.full(num_images, 1 / num_images), NUM_RESAMPLES).astype(np.float64)
    drops = arms[0].compute(weights) - arms[1].compute(weights)
    done, done_wall = time.process_time(), time.perf_counter()
    assert np.isfinite(drops).all()
    return {
        "images": num_images,
        "map": values[0],
        "drop_sd": float(drops.std()),
        "matching_cpu_s": matched - start,
        "bootstrap_cpu_s": done - matched,
        "bootstrap_s": done_wall - matched_wall,
        "peak_memory_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2,
    }


def main() -> None:
    """Print the table and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, help="write the figures as JSON")
    parser.add_argument("--images", type=int, nargs="+", default=[128, 5000])
    arguments = parser.parse_args()
    rows = [measure(count) for count in arguments.images]
    print(" ".join(f"{key:>16}" for key in rows[0]))
    for row in rows:
        print(" ".join(f"{value:16.4g}" for value in row.values()))
    if arguments.output:
        document = {"python": platform.python_version(), "numpy": np.__version__, "rows": rows}
        arguments.output.write_text(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()
