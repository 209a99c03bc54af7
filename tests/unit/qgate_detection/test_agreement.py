"""Agreement with float32, by hand, by a matcher of another make, and through a gate without labels."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from coco_reference import random_images

from qgate.engine.gate import Gate
from qgate.errors import DataError, ModelError
from qgate_detection.agreement import Agreement, Invented
from qgate_detection.boxes import Detections

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[3]
CLASSES = ("car", "cat", "cow", "cup")

Image = tuple[Detections, Detections]


def detect(*rows: tuple[float, float, float, float, float, int]) -> Detections:
    """Rows are x1, y1, x2, y2, score, class."""
    table = np.array(rows, dtype=np.float64).reshape(-1, 6)
    return Detections(table[:, :4].astype(np.float32), table[:, 4].astype(np.float32), table[:, 5].astype(np.int64))


def filled(metric_class: type, images: list[Image]) -> Agreement | Invented:
    """Update a metric with pairs of float32's and int8's detections."""
    metric = metric_class(CLASSES)
    for index, (float32, int8) in enumerate(images):
        metric.update(str(index), int8, float32)
    return metric


def shares(images: list[Image], where: dict[str, str] | None = None) -> tuple[float, float]:
    ones = np.ones((1, len(images)))
    return tuple(filled(metric, images).compute(ones, where)[0] for metric in (Agreement, Invented))  # type: ignore[return-value]


BOX = (0.0, 0.0, 10.0, 10.0)
NEAR = (0.0, 0.0, 10.0, 5.1)  # IoU 0.51
FAR = (0.0, 0.0, 10.0, 4.9)  # IoU 0.49
AWAY = (50.0, 50.0, 60.0, 60.0)


@pytest.mark.parametrize(
    ("float32", "int8", "agreement", "invented"),
    [
        ([(*BOX, 0.9, 0)], [(*BOX, 0.8, 0)], 1, 0),
        ([(*BOX, 0.9, 0)], [(*NEAR, 0.8, 0)], 1, 0),
        ([(*BOX, 0.9, 0)], [(*FAR, 0.8, 0)], 0, 1),
        ([(*BOX, 0.9, 0)], [(*BOX, 0.8, 1)], 0, 1),
        ([(*BOX, 0.9, 0)], [], 0, np.nan),
        ([], [(*BOX, 0.9, 0)], np.nan, 1),
        ([], [], np.nan, np.nan),
        # Scores on either side of the limit are the same detection; one far below it is none.
        ([(*BOX, 0.26, 0)], [(*BOX, 0.24, 0)], 1, np.nan),
        ([(*BOX, 0.24, 0)], [(*BOX, 0.26, 0)], np.nan, 0),
        ([(*BOX, 0.9, 0)], [(*BOX, 0.12, 0)], 0, np.nan),
        ([(*BOX, 0.12, 0)], [(*BOX, 0.9, 0)], np.nan, 1),
        # One to one: two boxes cannot both have the same counterpart.
        ([(*BOX, 0.9, 0)], [(*BOX, 0.9, 0), (*NEAR, 0.8, 0)], 1, 1 / 2),
        ([(*BOX, 0.9, 0), (*NEAR, 0.8, 0)], [(*BOX, 0.9, 0)], 1 / 2, 0),
        ([(*BOX, 0.9, 0), (*AWAY, 0.9, 2)], [(*BOX, 0.9, 0), (*AWAY, 0.9, 0), (*AWAY, 0.5, 1)], 1 / 2, 2 / 3),
        # A box without area is nothing that could be found again.
        ([(*BOX, 0.9, 0), (5, 5, 5, 5, 0.9, 0)], [(*BOX, 0.9, 0)], 1, 0),
    ],
)
def test_agreement_by_hand(float32: list, int8: list, agreement: float, invented: float) -> None:
    found = shares([(detect(*float32), detect(*int8))])

    assert found == pytest.approx((agreement, invented), nan_ok=True)


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    shared = max(width, 0) * max(height, 0)
    return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared)


def reproduced(counted: Detections, others: Detections) -> Iterator[tuple[int, bool]]:
    """Give class and fate of each detection that counts, one detection after another."""
    free = {index for index in range(len(others)) if others.scores[index] >= 0.125}
    for index in np.argsort(-counted.scores, kind="stable"):
        if counted.scores[index] < 0.25:
            continue
        box, label = counted.boxes[index].astype(float), counted.classes[index]
        candidates = {
            other: overlap(box, others.boxes[other].astype(float)) for other in free if others.classes[other] == label
        }
        best = max(candidates, key=lambda other: (candidates[other], other), default=None)
        found = best is not None and candidates[best] >= 0.5
        free -= {best} if found else set()
        yield int(label), found


def crowded_images(seed: int) -> list[Image]:
    """Draw images with float32's detections and what a coarse int8 model makes of them."""
    rng = np.random.default_rng(seed)
    images = []
    for float32, _ in random_images(seed, 15, len(CLASSES)):
        boxes = float32.boxes + rng.normal(0, 3, float32.boxes.shape).astype(np.float32)
        boxes = np.concatenate([np.minimum(boxes[:, :2], boxes[:, 2:]), np.maximum(boxes[:, :2], boxes[:, 2:])], axis=1)
        scores = (float32.scores * rng.uniform(0.3, 1.3, len(float32))).clip(0, 1).astype(np.float32)
        classes = np.where(rng.random(len(float32)) < 0.1, 0, float32.classes)
        images.append((float32, Detections(boxes, scores, classes).chosen(rng.random(len(float32)) < 0.9)))
    return images


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", [None, "cat"])
def test_agreement_equals_a_loop_over_detections(seed: int, name: str | None) -> None:
    images = crowded_images(seed)
    wanted = {CLASSES.index(name)} if name else set(range(len(CLASSES)))

    found = shares(images, {"class": name} if name else None)

    kept = [fate for float32, int8 in images for label, fate in reproduced(float32, int8) if label in wanted]
    had = [fate for float32, int8 in images for label, fate in reproduced(int8, float32) if label in wanted]
    assert 0 < np.mean(kept) < 1
    assert found == pytest.approx((np.mean(kept), 1 - np.mean(had)), abs=1e-12)
    assert filled(Agreement, images).support({"class": name} if name else None) == len(kept)
    assert filled(Invented, images).support({"class": name} if name else None) == len(had)


@pytest.mark.parametrize("metric", [Agreement, Invented])
def test_a_resample_equals_the_repeated_images(metric: type) -> None:
    images = crowded_images(9)
    weights = np.random.default_rng(0).integers(0, 4, (5, len(images))).astype(float)

    found = filled(metric, images).compute(weights)

    for row, value in zip(weights.astype(int), found, strict=True):
        repeated = [image for image, count in zip(images, row, strict=True) for _ in range(count)]
        assert value == pytest.approx(filled(metric, repeated).compute(np.ones((1, len(repeated))))[0], abs=1e-12)


def test_float32_agrees_with_itself() -> None:
    images = [(float32, float32) for float32, _ in crowded_images(3)]

    assert shares(images) == (1.0, 0.0)


def test_a_metric_may_be_asked_between_updates() -> None:
    metric = Agreement(CLASSES)
    metric.update("0", detect((*BOX, 0.9, 0)), detect((*BOX, 0.9, 0)))
    assert metric.compute(np.ones((1, 1)))[0] == 1
    metric.update("1", detect(), detect((*BOX, 0.9, 0)))
    assert metric.compute(np.ones((1, 2)))[0] == 0.5


@pytest.mark.parametrize("position", [0, 1])
def test_a_prediction_that_is_no_detections_is_an_error(position: int) -> None:
    arguments = [detect((*BOX, 0.9, 0)), detect((*BOX, 0.9, 0))]
    arguments[position] = "cat"  # type: ignore[call-overload]

    with pytest.raises(
        ModelError, match=r"takes qgate_detection\.boxes\.Detections, the model's postprocess gives str"
    ):
        Agreement(CLASSES).update("7.jpg", *arguments)


def configure(folder: Path, thresholds: str) -> Gate:
    """Write the gate of a coarse int8 model of the digits with a few images that have no labels, and open it."""
    images = sorted((ROOT / "examples" / "digits" / "data" / "val").iterdir())[:24]
    (folder / "val.txt").write_text("\n".join(map(str, images)), encoding="utf-8")
    (folder / "qgate.toml").write_text(
        f"""
schema_version = 1

[models.digits]
loader = "yolov5"
weights = "{ROOT}/examples/digits/digits.pt"
image_size = 192

[models.digits.data]
format = "coco"
calibration = {{ images = "{ROOT}/examples/digits/data/train", num_samples = 1 }}
evaluation = {{ images = "val.txt" }}

[models.digits.quantization]
backend = "fbgemm"
activation = {{ observer = "moving_average" }}
weight = {{ observer = "per_tensor_minmax" }}
{thresholds}
""",
        encoding="utf-8",
    )
    return Gate.open(folder / "qgate.toml")


def test_images_without_labels_are_enough_to_judge_agreement(tmp_path: Path) -> None:
    gate = configure(
        tmp_path,
        """
[models.digits.thresholds.agreement]
max_drop = 0.3
lower_bound = 0.7

[models.digits.thresholds.invented]
max_drop = 0.3
upper_bound = 0.3
""",
    )
    gate.preflight()

    result = gate.run("digits")

    assert [(verdict.metric, verdict.limit, verdict.status) for verdict in result.verdicts] == [
        ("agreement", "max_drop", "passed"),
        ("agreement", "lower_bound", "passed"),
        ("invented", "max_drop", "passed"),
        ("invented", "upper_bound", "passed"),
    ], [verdict.message for verdict in result.verdicts]
    agreement, invented = result.metrics["agreement"], result.metrics["invented"]
    assert agreement["baseline"] == 1
    assert 0.8 < agreement["candidate"] < 1
    assert agreement["drop"] == pytest.approx(1 - agreement["candidate"])
    assert agreement["drop_interval"][0] < agreement["drop"] < agreement["drop_interval"][1]
    assert agreement["slices"]["class"]["three"]["support"] > 0
    assert (invented["baseline"], invented["drop"]) == (0, pytest.approx(invented["candidate"]))
    assert invented["candidate"] < 0.2


def test_a_metric_that_needs_labels_still_asks_for_them(tmp_path: Path) -> None:
    thresholds = [f"\n[models.digits.thresholds.{name}]\nmax_drop = 0.3\n" for name in ("agreement", "map")]
    gate = configure(tmp_path, "".join(thresholds))

    with pytest.raises(DataError, match="has no annotations"):
        gate.preflight()
