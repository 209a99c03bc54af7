import numpy as np
import pytest
from sklearn.metrics import top_k_accuracy_score

import qgate_classification as plugin
from qgate.engine.wire import from_bytes, to_bytes
from qgate.errors import ConfigError, DataError, ModelError
from qgate.plugins import load_registry
from qgate_classification.metrics import Top1, Top5
from qgate_classification.scores import ClassScores, ClassTarget

CLASSES = tuple("abcdefgh")
NUM_IMAGES = 60


def drawn(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw scores, and labels that are often among the best."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, len(CLASSES), NUM_IMAGES)
    scores = rng.normal(size=(NUM_IMAGES, len(CLASSES)))
    scores[np.arange(NUM_IMAGES), labels] += 1
    return scores.astype(np.float32), labels


def filled(metric, scores: np.ndarray, labels: np.ndarray):
    for index, (row, label) in enumerate(zip(scores, labels, strict=True)):
        metric.update(str(index), ClassScores(row), ClassTarget(int(label), len(CLASSES)))
    return metric


@pytest.mark.parametrize(("metric_type", "count"), [(Top1, 1), (Top5, 5)])
def test_accuracy_equals_scikit_learns_with_weights_and_by_class(metric_type, count: int) -> None:
    scores, labels = drawn(0)
    metric = filled(metric_type(CLASSES), scores, labels)
    weights = np.random.default_rng(1).integers(0, 3, (20, NUM_IMAGES)).astype(float)
    weights[0] = 1

    def expected(row: np.ndarray, chosen: np.ndarray) -> float:
        classes = np.arange(len(CLASSES))
        return top_k_accuracy_score(labels[chosen], scores[chosen], k=count, labels=classes, sample_weight=row[chosen])

    everything = np.ones(NUM_IMAGES, dtype=bool)
    assert metric.compute(weights) == pytest.approx([expected(row, everything) for row in weights])
    for index, name in enumerate(CLASSES):
        chosen = labels == index
        assert metric.compute(weights[:1], {"class": name})[0] == pytest.approx(expected(weights[0], chosen))
        assert metric.support({"class": name}) == chosen.sum()
    assert metric.support() == NUM_IMAGES
    assert metric.slices() == {"class": CLASSES}


@pytest.mark.parametrize("metric_type", [Top1, Top5])
def test_shards_give_the_same_bits(metric_type) -> None:
    scores, labels = drawn(5)
    merged = metric_type(CLASSES)
    for part in (slice(0, 1), slice(1, 40), slice(40, NUM_IMAGES)):
        merged.merge(from_bytes(to_bytes(filled(metric_type(CLASSES), scores[part], labels[part]).summary())))
    whole = filled(metric_type(CLASSES), scores, labels)
    weights = np.random.default_rng(1).integers(0, 3, (20, NUM_IMAGES)).astype(float)
    for where in (None, {"class": "b"}):
        np.testing.assert_array_equal(merged.compute(weights, where), whole.compute(weights, where))
        assert merged.support(where) == whole.support(where)


def test_a_weight_of_two_counts_as_two_images() -> None:
    scores, labels = drawn(2)
    weights = np.random.default_rng(3).integers(0, 4, NUM_IMAGES)
    repeated = np.repeat(np.arange(NUM_IMAGES), weights)
    weighted = filled(Top1(CLASSES), scores, labels).compute(weights[None].astype(float))
    again = filled(Top1(CLASSES), scores[repeated], labels[repeated]).compute(np.ones((1, len(repeated))))
    assert weighted == pytest.approx(again)


def test_what_rests_on_nothing_is_nan() -> None:
    scores, labels = drawn(4)
    metric = filled(Top1(CLASSES), scores, np.zeros_like(labels))
    assert np.isnan(metric.compute(np.zeros((1, NUM_IMAGES)))).all()
    assert np.isnan(metric.compute(np.ones((2, NUM_IMAGES)), {"class": "b"})).all()
    assert np.isnan(Top1(CLASSES).compute(np.ones((2, 0)))).all()


def test_of_equal_scores_the_first_class_is_the_answer_as_argmax_has_it() -> None:
    scores = np.array([0.5, 0.9, 0.9, 0.1], dtype=np.float32)
    assert [ClassScores(scores).rank(label) for label in range(4)] == [2, 0, 1, 3]
    assert ClassScores(scores).best() == int(scores.argmax()) == 1


def test_targets_may_be_plain_indices() -> None:
    metric = Top1(())
    for target in (1, np.int64(1)):
        metric.update("x", ClassScores(np.array([0, 1], dtype=np.float32)), target)
    assert metric.compute(np.ones((1, 2))) == pytest.approx([1.0])


@pytest.mark.parametrize("num_classes", [2, 4, 5])
def test_top5_of_few_classes_is_refused(num_classes: int) -> None:
    message = f'metric "top5" says nothing of a model of {num_classes} classes: every answer is among 5; limit top1'
    with pytest.raises(ConfigError) as caught:
        Top5(CLASSES[:num_classes])
    assert str(caught.value) == message
    with pytest.raises(ConfigError) as caught:  # where the model does not name its classes
        Top5(()).update("x.png", ClassScores(np.zeros(num_classes, np.float32)), 0)
    assert str(caught.value) == message


SCORES = ClassScores(np.zeros(8, np.float32))


@pytest.mark.parametrize(
    ("prediction", "target", "error", "message"),
    [
        (3, 1, ModelError, 'x.png: metric "top1" takes qgate_classification.scores.ClassScores, .* gives int; use '),
        (ClassScores(np.full(8, np.nan)), 1, ModelError, r"x\.png: the model's scores hold NaN"),
        (ClassScores(np.zeros(7)), 1, ModelError, r"x\.png: the model gives 7 scores, but has 8 class names"),
        (SCORES, None, DataError, 'x.png: metric "top1" compares with a class index, the data set gives NoneType; use'),
        (SCORES, True, DataError, "gives bool"),
        (SCORES, 8, DataError, r"x\.png: is of class 8, the model has 8 classes, from 0 on"),
        (SCORES, -1, DataError, "is of class -1"),
        (SCORES, ClassTarget(1, 3), DataError, "the data set has 3 classes, the model gives 8 scores; name the model"),
    ],
)
def test_what_cannot_be_judged_names_the_image(prediction, target, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        Top1(CLASSES).update("x.png", prediction, target)


def test_a_dropped_class_is_never_among_the_answers_and_a_pseudo_label_says_the_same() -> None:
    registry = load_registry()
    scores = ClassScores(np.array([0.1, 0.9, 0.3, 0.2, 0, 0, 0, 0], dtype=np.float32))
    dropped = registry.drop_class(scores, 1)
    assert dropped.best() == 2
    assert dropped.rank(1) == 7
    assert scores.best() == 1
    for name in ("top1", "top5"):
        metric = registry.metrics.get(name)(CLASSES)
        metric.update("x", scores, registry.pseudo_label(scores))
        metric.update("y", dropped, registry.pseudo_label(scores))
        assert metric.compute(np.eye(2)) == pytest.approx([1, 0])
    assert plugin.qgate_drop_class("something else", 1) is None
    assert plugin.qgate_pseudo_label("something else") is None
