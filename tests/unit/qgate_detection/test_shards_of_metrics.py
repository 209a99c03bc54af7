"""A metric that was given its images in shards, by way of summaries, is the one that saw them all."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from coco_reference import random_images

from qgate.engine.wire import from_bytes, to_bytes
from qgate_detection.agreement import Agreement, Invented
from qgate_detection.metrics import MeanAveragePrecision, MeanAveragePrecision50, MeanIoU

if TYPE_CHECKING:
    from qgate_detection.metrics import BoxMetric

CLASSES = ("a", "b", "c")
METRICS = (MeanAveragePrecision, MeanAveragePrecision50, MeanIoU, Agreement, Invented)
COUNT = 30


def images_for(metric: type[BoxMetric]) -> list[tuple[Any, Any]]:
    """Give predictions with what they are compared with; many scores are equal, so that the order of images matters."""
    images = random_images(5, COUNT, len(CLASSES))
    for detections, _ in images:
        detections.scores[:] = np.round(detections.scores, 1)
    if not hasattr(metric, "compares_with"):
        return images
    others = random_images(6, COUNT, len(CLASSES))
    return [(detections, other) for (detections, _), (other, _) in zip(images, others, strict=True)]


def filled(metric: BoxMetric, images: list[tuple[Any, Any]]) -> BoxMetric:
    for index, (prediction, target) in enumerate(images):
        metric.update(str(index), prediction, target)
    return metric


def values(metric: BoxMetric) -> list[Any]:
    weights = np.vstack([np.ones((1, COUNT)), np.random.default_rng(0).poisson(1, (5, COUNT))]).astype(float)
    slices = [None, *({kind: name} for kind, names in metric.slices().items() for name in names)]
    return [(metric.compute(weights, where).tolist(), metric.support(where)) for where in slices]


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("cuts", [[], [1], [7, 7, 20], [29]], ids=str)
def test_shards_give_the_same_bits(metric: type[BoxMetric], cuts: list[int]) -> None:
    images = images_for(metric)
    whole = values(filled(metric(CLASSES), images))

    merged = metric(CLASSES)
    for begin, end in zip([0, *cuts], [*cuts, COUNT], strict=True):
        shard = filled(metric(CLASSES), images[begin:end])
        merged.merge(from_bytes(to_bytes(shard.summary())))

    assert repr(values(merged)) == repr(whole)  # NaN equals NaN there
    assert repr(values(filled(metric(CLASSES), images))) == repr(whole)


@pytest.mark.parametrize("metric", METRICS)
def test_batches_give_the_same_bits(metric: type[BoxMetric], monkeypatch: pytest.MonkeyPatch) -> None:
    images = images_for(metric)
    whole = values(filled(metric(CLASSES), images))
    monkeypatch.setattr("qgate_detection.metrics._BATCH", 4)
    monkeypatch.setattr("qgate.spill._IN_MEMORY", 64)

    assert repr(values(filled(metric(CLASSES), images))) == repr(whole)


def test_an_image_takes_little_more_than_twenty_bytes_a_detection() -> None:
    images = images_for(MeanAveragePrecision)
    metric = filled(MeanAveragePrecision(CLASSES), images)

    num_detections = sum(len(detections) for detections, _ in images)
    num_targets = sum(len(targets) for _, targets in images)
    metric.summary()
    size = sum(len(table) * table.dtype.itemsize for table in metric._tables.values())
    assert size <= 22 * num_detections + 9 * num_targets
