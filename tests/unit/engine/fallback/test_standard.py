"""What held-out samples say about limits, and what they cannot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from qgate.config.model import Place, ThresholdConfig
from qgate.engine.fallback.standard import missed_limits
from qgate.errors import DataError

PLACE = Place(Path("qgate.toml"), 1)


def table(**limits: float) -> ThresholdConfig:
    return ThresholdConfig("map", limits, PLACE)


def figures(**changes: Any) -> dict[str, dict[str, Any]]:
    said = {
        "baseline": 0.40,
        "candidate": 0.38,
        "drop": 0.02,
        "drop_interval": (0.0, 0.04),
        "relative_drop": 0.05,
        "relative_drop_interval": (0.0, 0.1),
        "higher_is_better": True,
        "limited_slices": [],
    }
    return {"map": said | changes}


def missed(limits: dict[str, float], num_evaluation: int = 64, *, sure: bool = True, **changes: Any) -> list[str]:
    found = missed_limits([table(**limits)], figures(**changes), 64, num_evaluation, sure=sure)
    return [verdict.limit for verdict in found]


@pytest.mark.parametrize(
    ("allowed", "num_evaluation", "expected"),
    [
        (0.041, 64, []),
        (0.039, 64, ["max_drop"]),
        (0.031, 256, []),  # four times the samples, half the interval: 0.01 to 0.03
        (0.029, 256, ["max_drop"]),
        (0.041, 16, ["max_drop"]),  # -0.02 to 0.06
    ],
)
def test_a_drop_must_hold_with_the_interval_that_the_gate_will_have(
    allowed: float, num_evaluation: int, expected: list[str]
) -> None:
    assert missed({"max_drop": allowed}, num_evaluation) == expected


@pytest.mark.parametrize(("allowed", "expected"), [(0.021, []), (0.019, ["max_drop"])])
def test_where_inconclusive_will_do_the_measured_drop_must_hold(allowed: float, expected: list[str]) -> None:
    assert missed({"max_drop": allowed}, sure=False) == expected
    assert missed({"max_drop": allowed}, drop_interval=None) == expected


def test_a_floor_that_float32_misses_on_these_samples_says_nothing() -> None:
    assert missed({"lower_bound": 0.39}) == ["lower_bound"]
    assert missed({"lower_bound": 0.41, "max_drop": 0.1}) == []
    assert missed({"upper_bound": 0.39, "max_drop": 0.1}) == []


@pytest.mark.parametrize("limits", [{"max_regression": 0.01}, {"lower_bound": 0.41}])
def test_where_nothing_can_be_told_that_is_an_error(limits: dict[str, float]) -> None:
    with pytest.raises(DataError, match="no limit on accuracy can be judged on held-out samples"):
        missed(limits)


def test_a_slice_has_figures_of_its_own_and_needs_its_targets() -> None:
    where = {"class": "cat"}
    item = figures(where=where, support=20, baseline=0.8, candidate=0.6, drop=0.2, drop_interval=(0.1, 0.3))["map"]
    slice_table = ThresholdConfig("map", {"max_drop": 0.1, "lower_bound": 0.7}, PLACE, where=where)

    found = missed_limits([slice_table, table(max_drop=0.1)], figures(limited_slices=[item]), 64, 64, sure=True)
    few = missed_limits(
        [slice_table, table(max_drop=0.1)], figures(limited_slices=[item | {"support": 9}]), 64, 64, sure=True
    )

    assert [(verdict.name, verdict.measured) for verdict in found] == [
        ("map[class=cat] max_drop", 0.2),
        ("map[class=cat] lower_bound", 0.6),
    ]
    assert few == []
