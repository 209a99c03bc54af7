import numpy as np
import pytest
from sklearn.metrics import jaccard_score

from qgate.engine.wire import from_bytes, to_bytes
from qgate.errors import DataError, ModelError
from qgate.plugins import load_registry
from qgate_segmentation.label_map import NO_CLASS, LabelMap
from qgate_segmentation.metrics import MeanIoU

CLASSES = ("ground", "road", "sky", "tree")
NUM_IMAGES = 8

Pair = tuple[np.ndarray, np.ndarray]


def drawn(seed: int, classes: int = len(CLASSES)) -> list[Pair]:
    """Draw predictions and labels that often agree, of images of several sizes; some pixels are not labelled."""
    rng = np.random.default_rng(seed)
    pairs = []
    for _ in range(NUM_IMAGES):
        shape = tuple(rng.integers(5, 12, 2))
        labels = rng.integers(0, classes, shape).astype(np.uint8)
        guessed = np.where(rng.random(shape) < 0.6, labels, rng.integers(0, classes, shape)).astype(np.uint8)
        labels[rng.random(shape) < 0.2] = NO_CLASS
        pairs.append((guessed, labels))
    return pairs


def filled(pairs: list[Pair], class_names: tuple[str, ...] = CLASSES) -> MeanIoU:
    metric = MeanIoU(class_names)
    for index, (guessed, labels) in enumerate(pairs):
        metric.update(str(index), LabelMap(guessed), LabelMap(labels))
    return metric


def scikit_learns(pairs: list[Pair], weights: np.ndarray, **options) -> np.ndarray:
    """Judge all labelled pixels at once, each with its image's weight; classes that are nowhere are left out."""
    guessed, labels = (np.concatenate([pair[side].ravel() for pair in pairs]) for side in (0, 1))
    weight = np.repeat(weights, [pair[0].size for pair in pairs])
    known = (labels != NO_CLASS) & (weight > 0)
    return jaccard_score(labels[known], guessed[known], sample_weight=weight[known], **options)


def test_shards_give_the_same_bits() -> None:
    pairs = drawn(3)
    merged = MeanIoU(CLASSES)
    for begin, end in ((0, 1), (1, 6), (6, NUM_IMAGES)):
        merged.merge(from_bytes(to_bytes(filled(pairs[begin:end]).summary())))
    weights = np.random.default_rng(1).integers(0, 3, (20, NUM_IMAGES)).astype(float)
    for where in (None, {"class": "road"}):
        np.testing.assert_array_equal(merged.compute(weights, where), filled(pairs).compute(weights, where))
        assert merged.support(where) == filled(pairs).support(where)


def test_miou_equals_scikit_learns_with_weights() -> None:
    pairs = drawn(0)
    weights = np.random.default_rng(1).integers(0, 3, (20, NUM_IMAGES)).astype(float)
    weights[0] = 1
    values = filled(pairs).compute(weights)
    assert values == pytest.approx([scikit_learns(pairs, row, average="macro") for row in weights])


def test_each_class_equals_scikit_learns() -> None:
    pairs = drawn(2)
    metric = filled(pairs)
    expected = scikit_learns(pairs, np.ones(NUM_IMAGES), average=None)
    for name, value in zip(CLASSES, expected, strict=True):
        assert metric.compute(np.ones((1, NUM_IMAGES)), {"class": name}) == pytest.approx([value])
    assert metric.slices() == {"class": CLASSES}


def test_a_weight_of_two_counts_as_two_images() -> None:
    pairs = drawn(3)
    weights = np.array([0, 1, 2, 3, 0, 1, 2, 0])
    repeated = [pair for pair, times in zip(pairs, weights, strict=True) for _ in range(times)]
    weighted = filled(pairs).compute(weights[None].astype(float))
    assert weighted == pytest.approx(filled(repeated).compute(np.ones((1, len(repeated)))))


def test_a_class_that_is_nowhere_is_left_out_and_one_that_is_only_predicted_is_not() -> None:
    labels = np.array([[0, 0, 1, NO_CLASS]], dtype=np.uint8)
    assert filled([(labels % 255, labels)]).compute(np.ones((1, 1))) == pytest.approx([1.0])
    guessed = np.array([[0, 2, 1, 3]], dtype=np.uint8)  # a wrong 2; nobody knows of the 3
    metric = filled([(guessed, labels)])
    assert metric.compute(np.ones((1, 1))) == pytest.approx([(1 / 2 + 1 + 0) / 3])
    assert np.isnan(metric.compute(np.ones((1, 1)), {"class": "tree"})).all()
    assert np.isnan(metric.compute(np.ones((1, 1)), {"class": CLASSES[2]})).all(), "it rests on no label"
    assert metric.support({"class": CLASSES[2]}) == 0


def test_what_rests_on_nothing_is_nan() -> None:
    assert np.isnan(MeanIoU(CLASSES).compute(np.ones((2, 0)))).all()
    unlabelled = filled([(np.zeros((2, 2), np.uint8), np.full((2, 2), NO_CLASS, np.uint8))])
    assert np.isnan(unlabelled.compute(np.ones((1, 1)))).all()
    assert unlabelled.support() == 0


def test_support_counts_images() -> None:
    labels = [np.array([row], dtype=np.uint8) for row in ([0, 1], [1, 1], [NO_CLASS, NO_CLASS])]
    metric = filled([(np.zeros((1, 2), np.uint8), row) for row in labels])
    assert metric.support() == 2
    assert [metric.support({"class": name}) for name in CLASSES] == [1, 2, 0, 0]


def test_a_model_without_class_names_has_as_many_as_there_are() -> None:
    pairs = drawn(5)
    assert filled(pairs, ()).compute(np.ones((1, NUM_IMAGES))) == pytest.approx(
        filled(pairs).compute(np.ones((1, NUM_IMAGES)))
    )


def a_map(*values: int) -> LabelMap:
    return LabelMap(np.array([values], dtype=np.uint8))


@pytest.mark.parametrize(
    ("prediction", "target", "error", "message"),
    [
        (
            3,
            a_map(0),
            ModelError,
            'a.png: metric "miou" takes qgate_segmentation.label_map.LabelMap, .* gives int; use',
        ),
        (a_map(0), None, DataError, 'a.png: metric "miou" compares with .*LabelMap, the data set gives NoneType; use'),
        (a_map(0, 0), a_map(0), ModelError, r"a\.png: the prediction has \(1, 2\) pixels, the labels \(1, 1\); post"),
        (a_map(4), a_map(0), ModelError, r"a\.png: predicts class 4, the model has 4 classes"),
        (a_map(0), a_map(4), DataError, r"a\.png: is labelled as class 4, the model has 4 classes"),
    ],
)
def test_what_cannot_be_judged_names_the_image(prediction, target, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        MeanIoU(CLASSES).update("a.png", prediction, target)


def test_a_dropped_class_is_lost_and_the_others_are_not() -> None:
    registry = load_registry()
    labels = a_map(0, 1, 1, 2)
    metric = registry.metrics.get("miou")(CLASSES)
    metric.update("a", registry.drop_class(labels, 1), registry.pseudo_label(labels))
    values = [metric.compute(np.ones((1, 1)), {"class": name})[0] for name in CLASSES[:3]]
    assert values == [1, 0, 1]
    assert labels.labels.tolist() == [[0, 1, 1, 2]]


@pytest.mark.parametrize("labels", [np.zeros((2, 2)), np.zeros(4, np.uint8), np.zeros((1, 2, 2), np.uint8)], ids=str)
def test_label_maps_are_bytes_of_two_dimensions(labels: np.ndarray) -> None:
    with pytest.raises(ValueError, match="labels must be uint8"):
        LabelMap(labels)
