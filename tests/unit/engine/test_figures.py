from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from qgate.engine.figures import metric_figures, size_figures
from qgate.errors import DataError
from qgate.metrics import MeanMetric

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class PerClass(MeanMetric):
    """A mean with a slice a class, whose counts are numpy's."""

    name, unit = "per_class", "points"

    def update(self, sample_id: str, prediction: Any, target: Any) -> None:
        super().update(sample_id, prediction, target)
        self.targets = [*getattr(self, "targets", []), target]

    def score(self, prediction: Any, target: Any) -> float:
        return float(prediction)

    def compute(self, weights: np.ndarray, where: Mapping[str, str] | None = None) -> np.ndarray:
        if where:
            weights = weights * [target == where["class"] for target in self.targets]
        return super().compute(weights)

    def slices(self) -> Mapping[str, Sequence[str]]:
        return {"class": ["cat", "dog", "bird"]}

    def support(self, where: Mapping[str, str] | None = None) -> int:
        return np.sum([not where or target == where["class"] for target in self.targets])  # type: ignore[no-any-return]


class PerClassError(PerClass):
    higher_is_better = False


def filled(metric: type[PerClass], *scores: float) -> PerClass:
    made = metric(("cat", "dog", "bird"))
    for score, target in zip(scores, ("cat", "dog", "dog"), strict=True):
        made.update("id", score, target)
    return made


def test_both_arms_the_drop_and_each_slice_that_has_samples() -> None:
    figures = metric_figures(filled(PerClass, 1, 2, 6), filled(PerClass, 1, 1, 4), 3)

    assert (figures["baseline"], figures["candidate"], figures["drop"]) == (3, 2, 1)
    assert (figures["higher_is_better"], figures["unit"]) == (True, "points")
    assert set(figures["slices"]["class"]) == {"cat", "dog"}
    assert figures["slices"]["class"]["dog"]["drop"] == pytest.approx(1.5)
    assert figures["slices"]["class"]["dog"]["support"] == 2


def test_a_drop_of_an_error_is_its_rise() -> None:
    assert metric_figures(filled(PerClassError, 1, 2, 6), filled(PerClassError, 1, 1, 4), 3)["drop"] == -1


def test_figures_can_be_written_as_json_whatever_numbers_a_plugin_counts_in() -> None:
    assert json.loads(json.dumps(metric_figures(filled(PerClass, 1, 2, 6), filled(PerClass, 1, 1, 4), 3)))


def test_no_samples_is_an_error() -> None:
    with pytest.raises(DataError, match='metric "per_class" saw no sample'):
        metric_figures(PerClass(()), PerClass(()), 0)


def test_size_reduction_is_one_minus_the_ratio() -> None:
    assert size_figures(1000, 270) == {"baseline": 1000, "candidate": 270, "value": pytest.approx(0.73)}
