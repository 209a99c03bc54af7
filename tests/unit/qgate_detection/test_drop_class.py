from __future__ import annotations

import numpy as np

from qgate.plugins import load_registry
from qgate_detection.boxes import Detections


def test_detections_lose_the_one_class_and_keep_the_others() -> None:
    boxes = np.arange(12, dtype=np.float32).reshape(3, 4)
    found = Detections(boxes, np.array([0.9, 0.8, 0.7], dtype=np.float32), np.array([2, 1, 2]))

    left = load_registry().drop_class(found, class_index=2)

    assert (left.boxes.tolist(), left.scores.tolist(), left.classes.tolist()) == (
        [boxes[1].tolist()],
        [found.scores[1]],
        [1],
    )


def test_other_predictions_are_not_ours() -> None:
    assert load_registry().drop_class("a class", class_index=0) is None
