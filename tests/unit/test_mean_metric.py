from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from qgate import MeanMetric
from qgate.errors import DataError


class Score(MeanMetric):
    name = "score"

    def score(self, prediction: Any, target: Any) -> float:
        return float(prediction)


def filled(*scores: float) -> Score:
    metric = Score(())
    for index, score in enumerate(scores):
        metric.update(str(index), score, None)
    return metric


def test_a_weight_of_two_is_the_sample_twice() -> None:
    rng = np.random.default_rng(0)
    scores = rng.random(20)
    counts = rng.integers(0, 4, (50, 20))

    values = filled(*scores).compute(counts.astype(np.float64))

    assert values == pytest.approx([np.mean(np.repeat(scores, row)) for row in counts])


def test_a_row_without_samples_is_undefined() -> None:
    assert np.isnan(filled(1.0, 2.0).compute(np.array([[0.0, 0.0], [1.0, 1.0]]))).tolist() == [True, False]


def test_nan_is_not_dropped() -> None:
    assert np.isnan(filled(1.0, np.nan, 3.0).compute(np.ones((1, 3)))[0])


def test_it_has_no_slices_and_says_so() -> None:
    metric = filled(1.0, 2.0)

    assert dict(metric.slices()) == {}
    assert metric.support() == 2
    with pytest.raises(DataError, match='metric "score" has no slices; it was asked for'):
        metric.compute(np.ones((1, 2)), {"class": "cat"})
