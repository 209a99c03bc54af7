"""A limit on a slice that the metric does not have is refused: no verdict could ever come of it."""

from __future__ import annotations

import inspect
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from qgate import MeanMetric, hookimpl
from qgate.config.model import Place, ThresholdConfig
from qgate.engine.slices import check_slices
from qgate.errors import ConfigError, PluginError
from qgate.plugins import load_registry

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

CLASSES = ("cat", "dog")


class Whole(MeanMetric):
    name = "whole"

    def score(self, prediction: Any, target: Any) -> float:
        return 0.0


class Crashes(Whole):
    name = "crashes"

    def slices(self) -> Mapping[str, Sequence[str]]:
        raise RuntimeError("a bug")


class Scoreless(MeanMetric):
    name = "scoreless"


class Plugin:
    @hookimpl
    def qgate_register_metrics(self) -> list[type]:
        return [Whole, Crashes, Scoreless]


REGISTRY = load_registry(plugins=[(Plugin(), "test")])


def check(metric: str, *wheres: dict[str, str], class_names: Sequence[str] = CLASSES) -> None:
    slices = tuple(
        ThresholdConfig(metric, {"max_drop": 0.1}, Place(Path("qgate.toml"), 10 + index), where=where)
        for index, where in enumerate(wheres)
    )
    threshold = ThresholdConfig(metric, {"max_drop": 0.1}, Place(Path("qgate.toml"), 1), slices=slices)
    config: Any = SimpleNamespace(name="net", thresholds={metric: threshold})
    check_slices(config, REGISTRY, class_names)


def test_a_metric_that_lacks_a_method_is_told_at_its_class() -> None:
    with pytest.raises(PluginError) as caught:
        check("scoreless")

    line = inspect.getsourcelines(Scoreless)[1]
    assert str(caught.value) == f'{__file__}:{line}: metric "scoreless": the class Scoreless lacks the method score'


@pytest.mark.parametrize("where", [{"class": "cat"}, {"size": "small"}, {"class": "dog", "size": "large"}])
def test_slices_that_the_metric_has_are_taken(where: dict[str, str]) -> None:
    check("map", {"class": "dog"}, where)


def test_a_limit_on_the_whole_needs_no_slices() -> None:
    check("whole")
    check("crashes")


@pytest.mark.parametrize(
    ("metric", "where", "said"),
    [
        ("map", {"class": "cta"}, 'metric "map" has no class "cta"; did you mean "cat"?'),
        ("map", {"class": "bird"}, 'metric "map" has no class "bird"; expected one of cat, dog'),
        ("map", {"class": "Cat"}, 'metric "map" has no class "Cat"; did you mean "cat"?'),
        ("map", {"class": "cat", "size": "smal"}, 'metric "map" has no size "smal"; did you mean "small"?'),
        ("map", {"colour": "red"}, 'metric "map" has no slices by "colour"; expected one of class, size'),
        ("iou", {"size": "small"}, 'metric "iou" has no slices by "size"; expected one of class'),
        ("whole", {"class": "cat"}, 'metric "whole" has no slices; leave the table out'),
    ],
)
def test_another_slice_is_an_error_at_its_line(metric: str, where: dict[str, str], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check(metric, {"class": "dog"} if metric != "whole" else where, where)
    line = 10 if metric == "whole" else 11
    assert str(caught.value) == f"qgate.toml:{line}: [models.net.thresholds.{metric}.slices] where: {said}"


def test_a_model_without_class_names_has_no_classes() -> None:
    with pytest.raises(ConfigError, match='metric "map" has no class "cat"; expected one of none'):
        check("map", {"class": "cat"}, class_names=())


def test_a_metric_that_crashes_is_named() -> None:
    with pytest.raises(PluginError, match='metric "crashes" cannot list its slices: RuntimeError: a bug'):
        check("crashes", {"class": "cat"})
