from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from qgate.errors import ModelError
from qgate_yolov5.loader import YoloV5Loader
from qgate_yolov5.nms import detect, suppress

if TYPE_CHECKING:
    from pathlib import Path

Boxes = np.ndarray


def overlaps(box: Boxes, others: Boxes) -> Boxes:
    """Give intersection over union of a box with others, all given by corners, in float64."""
    sides = (np.minimum(box[2:], others[:, 2:]) - np.maximum(box[:2], others[:, :2])).clip(0)
    shared = sides.prod(1)
    return shared / ((box[2:] - box[:2]).prod() + (others[:, 2:] - others[:, :2]).prod(1) - shared)


def greedy(boxes: Boxes, classes: Boxes, iou: float) -> list[int]:
    """Suppress by the definition, each box compared with all kept; boxes come by falling score."""
    kept: list[int] = []
    boxes = boxes.astype(np.float64)
    for index, box in enumerate(boxes):
        rivals = [other for other in kept if classes[other] == classes[index]]
        if not rivals or overlaps(box, boxes[rivals]).max() <= iou:
            kept.append(index)
    return kept


def crowded(seed: int, count: int, num_classes: int) -> tuple[Boxes, Boxes]:
    rng = np.random.default_rng(seed)
    corner, size = rng.uniform(0, 100, (count, 2)), rng.uniform(20, 60, (count, 2))
    return np.concatenate([corner, corner + size], 1).astype(np.float32), rng.integers(0, num_classes, count)


@pytest.mark.parametrize("iou", [0.3, 0.6, 0.9])
@pytest.mark.parametrize(("count", "num_classes"), [(1, 1), (200, 1), (200, 5), (2500, 3)])
def test_the_boxes_kept_are_those_of_the_definition(count: int, num_classes: int, iou: float) -> None:
    boxes, classes = crowded(count, count, num_classes)

    assert suppress(boxes, classes, iou, count).tolist() == greedy(boxes, classes, iou)


def test_stopping_early_keeps_the_first() -> None:
    boxes, classes = crowded(1, 3000, 4)

    assert suppress(boxes, classes, 0.6, 40).tolist() == greedy(boxes, classes, 0.6)[:40]


def test_equal_boxes_of_two_classes_both_stay() -> None:
    boxes = np.array([[0, 0, 10, 10]] * 3, dtype=np.float32)

    assert suppress(boxes, np.array([0, 1, 0]), 0.5, 10).tolist() == [0, 1]


def test_nothing_gives_nothing() -> None:
    assert suppress(np.zeros((0, 4), np.float32), np.zeros(0, np.int64), 0.5, 10).tolist() == []
    assert len(detect(np.zeros((0, 7), np.float32), 0.001, 0.6, 300)) == 0


def test_each_class_of_a_box_counts_and_scores_fall() -> None:
    candidates = np.array([[0, 0, 10, 10, 0.5, 0.9, 0.4], [50, 50, 60, 60, 1.0, 0.0, 0.3]], dtype=np.float32)

    found = detect(candidates, 0.1, 0.6, 300)

    assert found.scores.tolist() == pytest.approx([0.45, 0.3, 0.2])
    assert found.classes.tolist() == [0, 1, 1]
    assert found.boxes[:, 0].tolist() == [0, 50, 0]


def test_of_equal_scores_the_first_box_and_class_goes_first() -> None:
    """Objectness and probability are halves and quarters: products are exact, and nearly every score has equals."""
    boxes, _ = crowded(3, 400, 1)
    chances = np.random.default_rng(3).integers(0, 5, (400, 6)) / 4
    rows = np.column_stack([boxes, chances]).astype(np.float32)

    found = detect(rows, 0.2, 0.5, 1000)

    pairs = [(-row[4] * row[5 + label], cell, label) for cell, row in enumerate(rows) for label in range(5)]
    ranked = sorted((score, cell, label) for score, cell, label in pairs if -score > 0.2)
    cells, classes = (np.array([pair[place] for pair in ranked]) for place in (1, 2))
    expected = greedy(boxes[cells], classes, 0.5)
    assert 50 < len(expected) < 1000
    assert found.classes.tolist() == classes[expected].tolist()
    assert found.scores.tolist() == [-ranked[index][0] for index in expected]
    assert np.array_equal(found.boxes, boxes[cells[expected]])


def test_of_more_than_30000_candidates_the_best_are_looked_at() -> None:
    """Behind 30,000 copies of one box stand others, which would be kept if they were looked at."""
    corner = np.stack(np.meshgrid(np.arange(10.0), np.arange(10.0)), -1).reshape(-1, 2) * 20
    copies = np.zeros((30_000, 2))
    corner = np.concatenate([corner + 100, copies])
    scores = np.concatenate([np.linspace(0.1, 0.2, 100), np.linspace(0.3, 0.9, 30_000)])
    rows = np.column_stack([corner, corner + 10, np.ones(len(corner)), scores]).astype(np.float32)

    assert len(detect(rows, 0.001, 0.6, 300)) == 1
    assert len(detect(rows[:-1], 0.001, 0.6, 300)) == 2


def test_a_network_that_gives_nan_is_refused(assets: Path) -> None:
    loaded = YoloV5Loader().load(YoloV5Loader.Options(weights=assets / "yolov5n.pt"))
    maps = [torch.zeros(1, 3 * (5 + 80), side, side) for side in (80, 40, 20)]
    maps[1][0, 7, 3, 3] = torch.nan
    _, context = loaded.preprocess(np.zeros((480, 640, 3), np.uint8))

    with pytest.raises(ModelError, match="not finite"):
        loaded.postprocess(maps, context)
