import numpy as np
import pytest
from coco_reference import Image, coco_class_average_precision, coco_evaluation, random_images

from qgate.engine.figures import Comparison
from qgate.errors import DataError, ModelError
from qgate.resampled import decode
from qgate.statistics import resamples
from qgate_detection.boxes import Detections, Targets
from qgate_detection.metrics import MeanAveragePrecision, MeanAveragePrecision50, MeanIoU

CLASSES = ("car", "cat", "cow", "cup")
SEEDS = range(4)
NO_BOXES = np.zeros((0, 4))


def fill(metric, images: list[Image]):
    for index, (detections, targets) in enumerate(images):
        metric.update(str(index), detections, targets)
    return metric


def point_value(metric, num_images: int, where: dict[str, str] | None = None) -> float:
    return metric.compute(np.ones((1, num_images)), where)[0]


def detect(*rows: tuple[float, float, float, float, float, int]) -> Detections:
    """Rows are x1, y1, x2, y2, score, class."""
    table = np.array(rows, dtype=np.float64).reshape(-1, 6)
    return Detections(table[:, :4].astype(np.float32), table[:, 4].astype(np.float32), table[:, 5].astype(np.int64))


def label(*rows: tuple[float, float, float, float, int], crowd: tuple[bool, ...] = ()) -> Targets:
    """Rows are x1, y1, x2, y2, class."""
    table = np.array(rows, dtype=np.float64).reshape(-1, 5)
    areas = (table[:, 2] - table[:, 0]) * (table[:, 3] - table[:, 1])
    crowds = np.array(crowd or [False] * len(table), dtype=bool)
    return Targets(table[:, :4], table[:, 4].astype(np.int64), crowds, areas)


@pytest.mark.parametrize("seed", SEEDS)
def test_map_equals_pycocotools_overall_and_by_size(seed: int) -> None:
    images = random_images(seed, 20, len(CLASSES))
    expected = coco_evaluation(images, len(CLASSES)).stats
    metric = fill(MeanAveragePrecision(CLASSES), images)
    assert point_value(metric, 20) == pytest.approx(expected[0], abs=1e-9)
    assert point_value(fill(MeanAveragePrecision50(CLASSES), images), 20) == pytest.approx(expected[1], abs=1e-9)
    for size, index in {"small": 3, "medium": 4, "large": 5}.items():
        assert point_value(metric, 20, {"size": size}) == pytest.approx(expected[index], abs=1e-9)


@pytest.mark.parametrize("seed", SEEDS)
def test_average_precision_of_a_class_equals_pycocotools(seed: int) -> None:
    images = random_images(seed, 20, len(CLASSES))
    evaluation = coco_evaluation(images, len(CLASSES))
    metric = fill(MeanAveragePrecision(CLASSES), images)
    for index, name in enumerate(CLASSES):
        expected = coco_class_average_precision(evaluation, index)
        assert point_value(metric, 20, {"class": name}) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_resample_equals_pycocotools_on_the_repeated_images(seed: int) -> None:
    images = random_images(seed, 12, len(CLASSES))
    weights = np.random.default_rng(seed).multinomial(12, np.full(12, 1 / 12), size=5)
    metric = fill(MeanAveragePrecision(CLASSES), images)
    overall, small = metric.compute(weights.astype(float)), metric.compute(weights.astype(float), {"size": "small"})
    for row, value, small_value in zip(weights, overall, small, strict=True):
        stats = coco_evaluation([images[index] for index in np.repeat(np.arange(12), row)], len(CLASSES)).stats
        assert value == pytest.approx(stats[0], abs=1e-9)
        assert small_value == pytest.approx(stats[3], abs=1e-9)


def harmed(images: list[Image], seed: int) -> list[Image]:
    """Give what a second arm predicts: boxes and scores a little off, and some boxes missing."""
    rng = np.random.default_rng(seed)
    return [(_harmed(rng, detections), targets) for detections, targets in images]


def _harmed(rng: np.random.Generator, detections: Detections) -> Detections:
    kept = rng.random(len(detections)) > 0.1
    boxes = detections.boxes[kept] + rng.normal(0, 3, (kept.sum(), 4)).astype(np.float32)
    scores = detections.scores[kept] * rng.uniform(0.7, 1, kept.sum()).astype(np.float32)
    return Detections(boxes, scores, detections.classes[kept])


def test_the_drop_in_the_gates_own_resamples_equals_pycocotools_on_the_repeated_images() -> None:
    num_images = 14
    float32 = random_images(11, num_images, len(CLASSES))
    arms = [float32, harmed(float32, 12)]
    metrics = [fill(MeanAveragePrecision(CLASSES), images) for images in arms]

    figures = Comparison(*metrics, num_images, 0.95, seed=3).figures()

    (rows,) = resamples(num_images, 3)
    drops = metrics[0].compute(rows) - metrics[1].compute(rows)
    for index in (0, 1, 499, 999):
        drawn = np.repeat(np.arange(num_images), rows[index].astype(int))
        before, after = (coco_evaluation([images[i] for i in drawn], len(CLASSES)).stats[0] for images in arms)
        assert drops[index] == pytest.approx(before - after, abs=1e-9)
        assert decode(figures["resampled"])[index] == pytest.approx(after, abs=1e-7)  # kept as float32
    before, after = (coco_evaluation(images, len(CLASSES)).stats[0] for images in arms)
    assert figures["drop"] == pytest.approx(before - after, abs=1e-9)
    assert abs(before - after) > 0.001
    # 2.16 is Student's quantile of 13 degrees: a tail of 1.25% on either side, and what mirrors it
    low, high = np.quantile(drops, [0.0125, 0.9875])
    hull = min(low, 2 * figures["drop"] - high), max(high, 2 * figures["drop"] - low)
    assert figures["drop_interval"] == pytest.approx(hull, abs=0.1 * (high - low))


def test_equal_scores_rank_as_in_pycocotools() -> None:
    images = [
        (Detections(boxes.boxes, np.round(boxes.scores * 8) / np.float32(8), boxes.classes), targets)
        for boxes, targets in random_images(7, 20, len(CLASSES))
    ]
    expected = coco_evaluation(images, len(CLASSES)).stats[0]
    assert point_value(fill(MeanAveragePrecision(CLASSES), images), 20) == pytest.approx(expected, abs=1e-9)


def test_recall_reaches_the_points_that_it_reaches_in_pycocotools() -> None:
    # 1 to 99 of 100 targets found: recall falls on each point of the 101, where the last bit decides.
    boxes = [(20.0 * k, 0.0, 20.0 * k + 10, 10.0) for k in range(100)]
    images = []
    for image, box in enumerate(boxes):
        rows = [(*box, 0.99 - image / 200, 0), (500, 500, 510, 510, 0.985 - image / 200, 0)]
        images.append((detect(*rows), label((*box, 0))))
    expected = coco_evaluation(images, 1).stats[0]
    assert point_value(fill(MeanAveragePrecision(["thing"]), images), 100) == pytest.approx(expected, abs=1e-9)


def test_map_of_normalized_weights_equals_that_of_counts() -> None:
    metric = fill(MeanAveragePrecision(CLASSES), random_images(1, 30, len(CLASSES)))
    weights = np.random.default_rng(0).integers(0, 4, (20, 30)).astype(float)
    # The last point of recall may be missed by rounding: it counts for 1% of a class's tail.
    assert metric.compute(weights / 32) == pytest.approx(metric.compute(weights), abs=1e-12)


def test_an_ignored_detection_before_an_absent_true_positive_leaves_nothing_seen() -> None:
    box, crowd = (0.0, 0.0, 10.0, 10.0), (3.0, 0.0, 40.0, 10.0)  # seven tenths of the box are in the crowd
    images = [
        (detect((*box, 0.9, 0)), label((*crowd, 0), crowd=(True,))),
        (detect((*box, 0.8, 0)), label((*box, 0))),
        (detect((*box, 0.7, 0)), label((*box, 0))),
    ]
    value = fill(MeanAveragePrecision(["thing"]), images).compute(np.array([[3.0, 0.0, 1.0]]))
    expected = coco_evaluation([images[index] for index in (0, 0, 0, 2)], 1).stats[0]
    assert value == pytest.approx([expected], abs=1e-9)


def test_a_class_without_targets_in_a_resample_is_left_out_of_it() -> None:
    box = (0.0, 0.0, 10.0, 10.0)
    metric = fill(
        MeanAveragePrecision(CLASSES),
        [(detect((*box, 0.9, 0)), label((*box, 0))), (detect(), label((*box, 1)))],
    )
    assert metric.compute(np.array([[1.0, 1.0], [1.0, 0.0], [0.0, 1.0]])) == pytest.approx([0.5, 1.0, 0.0])


@pytest.mark.parametrize("metric_type", [MeanAveragePrecision, MeanAveragePrecision50, MeanIoU])
def test_what_rests_on_nothing_is_nan(metric_type) -> None:
    empty = metric_type(CLASSES)
    assert np.isnan(empty.compute(np.ones((2, 0)))).all()
    without_targets = fill(metric_type(CLASSES), [(detect((0, 0, 5, 5, 0.5, 1)), label())])
    assert np.isnan(without_targets.compute(np.ones((2, 1)))).all()
    assert without_targets.support() == 0


def test_an_update_after_compute_counts() -> None:
    box = (0.0, 0.0, 10.0, 10.0)
    for metric in (MeanAveragePrecision(CLASSES), MeanIoU(CLASSES)):
        fill(metric, [(detect((*box, 0.9, 0)), label((*box, 0)))])
        assert point_value(metric, 1) == pytest.approx(1.0)
        metric.update("another", detect(), label((*box, 0)))
        assert point_value(metric, 2) == pytest.approx(0.5, abs=0.01)  # 51 of 101 points for mAP


def test_support_counts_targets_to_be_found() -> None:
    targets = label((0, 0, 10, 10, 0), (0, 0, 200, 200, 0), (0, 0, 10, 10, 1), crowd=(False, False, True))
    metric = fill(MeanAveragePrecision(CLASSES), [(detect(), targets)])
    assert metric.support() == 2
    assert metric.support({"size": "large"}) == 1
    assert metric.support({"class": "cat"}) == 0
    assert metric.support({"class": "car", "size": "small"}) == 1
    assert metric.slices() == {"class": CLASSES, "size": ("small", "medium", "large")}
    assert fill(MeanIoU(CLASSES), [(detect(), targets)]).support({"class": "car"}) == 2


def test_iou_lets_the_highest_score_choose_first() -> None:
    # The sure detection overlaps the first target by 8/12 and takes it from the better but less sure one.
    targets = label((0, 0, 10, 10, 0), (100, 0, 110, 10, 0))
    detections = detect((2, 0, 12, 10, 0.9, 0), (0, 0, 10, 10, 0.5, 0))
    metric = fill(MeanIoU(CLASSES), [(detections, targets)])
    assert point_value(metric, 1) == pytest.approx((8 / 12 + 0) / 2)


def test_iou_ignores_low_scores_other_classes_and_crowds() -> None:
    box = (0.0, 0.0, 10.0, 10.0)
    targets = label((*box, 0), (50, 50, 90, 90, 0), crowd=(False, True))
    low_or_wrong = detect((*box, 0.24, 0), (*box, 0.9, 1))
    assert point_value(fill(MeanIoU(CLASSES), [(low_or_wrong, targets)]), 1) == 0
    at_the_limit = detect((*box, 0.25, 0))
    assert point_value(fill(MeanIoU(CLASSES), [(at_the_limit, targets)]), 1) == pytest.approx(1)


def test_iou_weighs_images_by_their_targets() -> None:
    box = (0.0, 0.0, 10.0, 10.0)
    found = (detect((*box, 0.9, 0)), label((*box, 0)))
    missed = (detect(), label((*box, 0), (20, 0, 30, 10, 1)))
    metric = fill(MeanIoU(CLASSES), [found, missed])
    assert metric.compute(np.array([[1.0, 1.0], [2.0, 1.0]])) == pytest.approx([1 / 3, 2 / 4])
    assert metric.compute(np.array([[1.0, 1.0]]), {"class": "car"}) == pytest.approx([1 / 2])


def test_iou_equals_a_plain_loop() -> None:
    images = random_images(3, 15, len(CLASSES))
    overlaps = [overlap for detections, targets in images for overlap in loop_over(detections, targets)]
    assert point_value(fill(MeanIoU(CLASSES), images), 15) == pytest.approx(np.mean(overlaps), abs=1e-12)


def loop_over(detections: Detections, targets: Targets) -> list[float]:
    best = {index: 0.0 for index in range(len(targets)) if not targets.crowd[index]}
    free = set(best)
    for d in sorted(range(len(detections)), key=lambda d: -detections.scores[d]):
        if detections.scores[d] < 0.25:
            continue
        choices = [
            (overlap_of(detections.boxes[d].astype(float), targets.boxes[t]), t)
            for t in free
            if targets.classes[t] == detections.classes[d]
        ]
        overlap, chosen = max(choices, default=(0.0, -1))
        if overlap > 0:
            best[chosen] = overlap
            free.remove(chosen)
    return list(best.values())


def overlap_of(one: np.ndarray, other: np.ndarray) -> float:
    width, height = np.minimum(one[2:], other[2:]) - np.maximum(one[:2], other[:2])
    if width <= 0 or height <= 0:
        return 0.0
    areas = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (one, other))
    return float(width * height / (areas - width * height))


def test_what_a_metric_cannot_take_is_an_error_that_names_the_sample() -> None:
    metric = MeanAveragePrecision(CLASSES)
    with pytest.raises(ModelError, match=r"^cat\.jpg: metric 'map' takes .*Detections, .* gives list"):
        metric.update("cat.jpg", [], label())
    with pytest.raises(DataError, match=r"^cat\.jpg: metric 'map' compares with .*Targets, .* gives NoneType"):
        metric.update("cat.jpg", detect(), None)
    with pytest.raises(ModelError, match=r"^cat\.jpg: .* not finite"):
        metric.update("cat.jpg", detect((0, 0, np.nan, 1, 0.5, 0)), label())
    with pytest.raises(ModelError, match=r"^cat\.jpg: the model predicts class 4, but has names for 4 classes"):
        metric.update("cat.jpg", detect((0, 0, 1, 1, 0.5, 4)), label())
