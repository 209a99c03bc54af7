from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from qgate.engine.figures import Comparison, size_figures
from qgate.errors import DataError
from qgate.metrics import MeanMetric
from qgate.resampled import decode
from qgate.statistics import resamples

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


def filled(metric: type[PerClass], scores: Sequence[float], targets: Sequence[str]) -> PerClass:
    made = metric(("cat", "dog", "bird"))
    for score, target in zip(scores, targets, strict=True):
        made.update("id", score, target)
    return made


def figures_of(
    before: Sequence[float],
    after: Sequence[float],
    targets: Sequence[str],
    *limited: dict[str, str],
    metric: type[PerClass] = PerClass,
    confidence: float = 0.95,
) -> dict[str, Any]:
    """Compare two arms, resampled with seed 5."""
    arms = (filled(metric, scores, targets) for scores in (before, after))
    return Comparison(*arms, len(targets), confidence, 5).figures(limited)


THREE = ((1.0, 2.0, 6.0), (1.0, 1.0, 4.0), ("cat", "dog", "dog"))


def test_both_arms_the_drop_and_each_slice_that_has_samples() -> None:
    figures = figures_of(*THREE)

    assert (figures["baseline"], figures["candidate"], figures["drop"]) == (3, 2, 1)
    assert figures["relative_drop"] == pytest.approx(1 / 3)
    assert (figures["higher_is_better"], figures["unit"]) == (True, "points")
    assert set(figures["slices"]["class"]) == {"cat", "dog"}
    assert figures["slices"]["class"]["dog"]["drop"] == pytest.approx(1.5)
    assert figures["slices"]["class"]["dog"]["relative_drop"] == pytest.approx(1.5 / 4)
    assert figures["slices"]["class"]["dog"]["support"] == 2


def test_three_samples_have_no_interval() -> None:
    figures = figures_of(*THREE)

    assert (figures["drop_interval"], figures["relative_drop_interval"]) == (None, None)


def test_a_drop_of_an_error_is_its_rise() -> None:
    assert figures_of(*THREE, metric=PerClassError)["drop"] == -1


def test_figures_can_be_written_as_json_whatever_numbers_a_plugin_counts_in() -> None:
    assert json.loads(json.dumps(figures_of(*THREE, {"class": "dog"})))


def test_no_samples_is_an_error() -> None:
    with pytest.raises(DataError, match='metric "per_class" saw no sample'):
        Comparison(PerClass(()), PerClass(()), 0, 0.95, 0).figures()


def test_size_reduction_is_one_minus_the_ratio() -> None:
    assert size_figures(1000, 270) == {"baseline": 1000, "candidate": 270, "value": pytest.approx(0.73)}


def paired(samples: int) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Draw scores of two arms that share what makes a sample hard, and each sample's class."""
    rng = np.random.default_rng(0)
    hard = rng.normal(5, 2, samples)
    return hard, hard - rng.normal(0.1, 0.2, samples), list(rng.choice(["cat", "dog"], samples))


def test_the_drop_is_resampled_as_pairs() -> None:
    before, after, targets = paired(60)

    low, high = figures_of(before, after, targets)["drop_interval"]

    # of a mean, the paired interval is Student's of the differences; 2.0010 is the quantile of 59 degrees
    half = 2.0010 * np.std(before - after, ddof=1) / np.sqrt(60)
    drop = np.mean(before - after)
    assert (low, high) == pytest.approx((drop - half, drop + half), abs=0.2 * half)
    assert high - low < 0.2 * 2 * 2.0010 * np.sqrt((np.var(before) + np.var(after)) / 60)  # were they not paired


def test_a_relative_drop_has_the_interval_of_the_ratio() -> None:
    before, after, targets = paired(60)

    figures = figures_of(before, after, targets)

    (rows,) = resamples(60, 5)
    ratios = (rows @ (before - after)) / (rows @ before)
    low, high = np.quantile(ratios, [0.025, 0.975])
    assert figures["relative_drop"] == pytest.approx(1 - after.mean() / before.mean())
    assert figures["relative_drop_interval"] == pytest.approx((low, high), abs=0.2 * (high - low))


def test_a_greater_confidence_has_a_wider_interval() -> None:
    narrow, wide = (figures_of(*paired(60), confidence=level)["drop_interval"] for level in (0.8, 0.99))

    assert wide[0] < narrow[0] < narrow[1] < wide[1]


def test_int8_in_each_resample_is_kept_for_later_runs() -> None:
    before, after, targets = paired(40)

    figures = figures_of(before, after, targets, {"class": "cat"})

    (rows,) = resamples(40, 5)
    assert decode(figures["resampled"]) == pytest.approx(rows @ after / 40, rel=1e-6)
    of_cats = rows * (np.array(targets) == "cat")
    cats = decode(figures["limited_slices"][0]["resampled"])
    assert cats == pytest.approx(of_cats @ after / of_cats.sum(axis=1), rel=1e-6)


def test_a_slice_that_a_limit_names_has_an_interval_of_its_own() -> None:
    before, after, targets = paired(60)
    chosen = np.array(targets) == "dog"

    (figures,) = figures_of(before, after, targets, {"class": "dog"})["limited_slices"]

    assert (figures["where"], figures["support"]) == ({"class": "dog"}, chosen.sum())
    differences = (before - after)[chosen]
    assert figures["drop"] == pytest.approx(differences.mean())
    half = 2.04 * differences.std(ddof=1) / np.sqrt(chosen.sum())  # of about 30 degrees
    assert np.diff(figures["drop_interval"])[0] == pytest.approx(2 * half, rel=0.25)


class ManyTargets(PerClass):
    """A sample counts as a hundred targets."""

    def support(self, where: Mapping[str, str] | None = None) -> int:
        return 100 * int(super().support(where))


@pytest.mark.parametrize(("cats", "known"), [(5, False), (8, True)])
def test_hundreds_of_targets_in_five_samples_are_five_samples(cats: int, known: bool) -> None:
    before, after, _ = paired(300)
    targets = ["cat"] * cats + ["dog"] * (300 - cats)

    (figures,) = figures_of(before, after, targets, {"class": "cat"}, metric=ManyTargets)["limited_slices"]

    assert figures["support"] == 100 * cats
    assert (figures["drop_interval"] is not None) is known


def test_the_samples_of_a_large_set_are_all_counted_where_targets_are_everywhere() -> None:
    assert figures_of(*paired(350))["samples"] == 350
    assert figures_of(*paired(35))["samples"] == 35
