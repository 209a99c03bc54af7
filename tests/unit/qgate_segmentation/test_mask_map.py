import numpy as np
import pytest
from mask_reference import WIDTH, Image, coco_mask_evaluation, random_images

from qgate.engine.storable import Packer, dataclasses_in, unpack
from qgate.engine.wire import from_bytes, to_bytes
from qgate.errors import DataError, ModelError
from qgate.plugins import load_registry
from qgate_detection.boxes import Detections
from qgate_detection.metrics import MeanAveragePrecision, MeanIoU
from qgate_segmentation.mask_metrics import MaskAveragePrecision, MaskAveragePrecision50
from qgate_segmentation.masks import InstanceDetections, InstanceTargets, Masks

CLASSES = ("cat", "cow", "cup")
NUM_IMAGES = 12


def filled(metric, images: list[Image]):
    for index, (detections, targets) in enumerate(images):
        metric.update(str(index), detections, targets)
    return metric


@pytest.mark.parametrize("seed", range(3))
def test_mask_map_equals_pycocotools_overall_by_size_and_by_class(seed: int) -> None:
    images = random_images(seed, NUM_IMAGES, len(CLASSES))
    evaluation = coco_mask_evaluation(images, len(CLASSES))
    metric, ones = filled(MaskAveragePrecision(CLASSES), images), np.ones((1, NUM_IMAGES))
    assert metric.compute(ones)[0] == pytest.approx(evaluation.stats[0], abs=1e-9)
    assert 0.05 < evaluation.stats[0] < 0.95
    map50 = filled(MaskAveragePrecision50(CLASSES), images)
    assert map50.compute(ones)[0] == pytest.approx(evaluation.stats[1], abs=1e-9)
    for size, index in {"small": 3, "medium": 4, "large": 5}.items():
        expected = evaluation.stats[index]
        value = metric.compute(ones, {"size": size})[0]
        assert value == pytest.approx(expected if expected >= 0 else np.nan, abs=1e-9, nan_ok=True)
    for label, name in enumerate(CLASSES):
        expected = evaluation.eval["precision"][:, :, label, 0, -1].mean()
        assert metric.compute(ones, {"class": name})[0] == pytest.approx(expected, abs=1e-9)


def test_shards_give_the_same_bits() -> None:
    images, ones = random_images(4, NUM_IMAGES, len(CLASSES)), np.ones((1, NUM_IMAGES))
    merged = MaskAveragePrecision(CLASSES)
    for begin, end in ((0, 1), (1, 8), (8, NUM_IMAGES)):
        shard = filled(MaskAveragePrecision(CLASSES), images[begin:end])
        merged.merge(from_bytes(to_bytes(shard.summary())))
    whole = filled(MaskAveragePrecision(CLASSES), images)
    for where in (None, {"class": "cow"}, {"size": "small"}):
        np.testing.assert_array_equal(merged.compute(ones, where), whole.compute(ones, where))
        assert merged.support(where) == whole.support(where)
    assert 0.05 < merged.compute(ones)[0] < 0.95


def test_a_resample_equals_pycocotools_on_the_repeated_images() -> None:
    images = random_images(5, NUM_IMAGES, len(CLASSES))
    rows = np.random.default_rng(5).multinomial(NUM_IMAGES, np.full(NUM_IMAGES, 1 / NUM_IMAGES), size=4)
    values = filled(MaskAveragePrecision(CLASSES), images).compute(rows.astype(float))
    for row, value in zip(rows, values, strict=True):
        drawn = [images[index] for index in np.repeat(np.arange(NUM_IMAGES), row)]
        assert value == pytest.approx(coco_mask_evaluation(drawn, len(CLASSES)).stats[0], abs=1e-9)


def test_box_metrics_take_the_same_predictions_by_their_boxes() -> None:
    images = random_images(6, NUM_IMAGES, len(CLASSES))
    boxes = [(Detections(found.boxes, found.scores, found.classes), targets) for found, targets in images]
    for metric in (MeanAveragePrecision, MeanIoU):
        ones = np.ones((1, NUM_IMAGES))
        assert filled(metric(CLASSES), images).compute(ones) == filled(metric(CLASSES), boxes).compute(ones)


def test_a_dropped_class_takes_its_masks_along_and_pseudo_labels_have_masks() -> None:
    registry = load_registry()
    found = next(found for found, _ in random_images(7, 20, len(CLASSES)) if len(set(found.classes)) == len(CLASSES))
    left = registry.drop_class(found, 1)
    assert isinstance(left, InstanceDetections)
    assert left.masks.counts == tuple(np.array(found.masks.counts)[found.classes != 1])
    labels = registry.pseudo_label(found)
    assert isinstance(labels, InstanceTargets)
    assert len(labels) == (found.scores >= 0.25).sum() > 0
    assert labels.areas.tolist() == labels.masks.areas().tolist()


def test_predictions_can_be_stored() -> None:
    found, _ = random_images(8, 1, len(CLASSES))[0]
    packer = Packer()
    again = unpack(packer.pack(found), bytes(packer.blob), dataclasses_in(found))
    assert isinstance(again, InstanceDetections)
    assert again.masks.counts == found.masks.counts
    assert again.boxes.tolist() == found.boxes.tolist()


def test_boxes_without_masks_are_refused() -> None:
    found, targets = random_images(9, 1, len(CLASSES))[0]
    metric = MaskAveragePrecision(CLASSES)
    with pytest.raises(ModelError, match=r"x: metric 'mask_map' takes .*InstanceDetections, .* gives Detections"):
        metric.update("x", Detections(found.boxes, found.scores, found.classes), targets)
    with pytest.raises(
        DataError, match=r"x: metric 'mask_map' compares with .*InstanceTargets, the data set gives None"
    ):
        metric.update("x", found, None)


def test_masks_of_another_size_than_the_labels_are_refused() -> None:
    found, targets = random_images(9, 1, len(CLASSES))[0]
    squared = InstanceDetections(
        found.boxes, found.scores, found.classes, masks=Masks(WIDTH, WIDTH, found.masks.counts)
    )
    for metric in (MaskAveragePrecision(CLASSES), MaskAveragePrecision50(CLASSES)):
        with pytest.raises(
            ModelError, match=r"x: the predicted masks are of .* \(160, 160\) .* \(120, 160\).*original image's size"
        ):
            metric.update("x", squared, targets)


def test_as_many_masks_as_boxes() -> None:
    found, _ = random_images(10, 1, len(CLASSES))[0]
    with pytest.raises(ValueError, match="there are 0 masks for"):
        InstanceDetections(
            found.boxes, found.scores, found.classes, masks=found.masks.chosen(np.zeros(len(found), dtype=bool))
        )
