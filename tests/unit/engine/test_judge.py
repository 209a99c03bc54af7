from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pytest

from qgate.config.model import Place, ThresholdConfig
from qgate.engine.judge import judge

if TYPE_CHECKING:
    from qgate.results import Verdict

NAN, INF = float("nan"), float("inf")
DROP = {"baseline": 0.5, "candidate": 0.48, "drop": 0.02, "higher_is_better": True}
ERROR_RATE = {"baseline": 0.10, "candidate": 0.13, "drop": 0.03, "higher_is_better": False}
SIZE = {"baseline": 1000, "candidate": 270, "value": 0.73}
SPEED = {"baseline": 0.03, "candidate": 0.02, "value": 1.5, "interval": (1.4, 1.6), "baseline_form": "frozen"}


def limit(
    name: str, value: float, figures: dict[str, Any] | None, drop_type: Literal["absolute", "relative"] = "absolute"
) -> Verdict:
    """Judge one limit of one metric."""
    threshold = ThresholdConfig("quality", {name: value}, Place(Path("qgate.toml"), 1), drop_type)
    (verdict,) = judge({"quality": threshold}, {"quality": figures} if figures else {}, "the disk is full")
    return verdict


@pytest.mark.parametrize(
    ("name", "figures", "measured", "held", "missed"),
    [
        ("max_drop", DROP, 0.02, 0.021, 0.019),
        ("max_drop", ERROR_RATE, 0.03, 0.031, 0.029),
        ("lower_bound", DROP, 0.48, 0.479, 0.481),
        ("upper_bound", ERROR_RATE, 0.13, 0.131, 0.129),
        ("lower_bound", SIZE, 0.73, 0.72, 0.74),
        ("lower_bound", SPEED, 1.5, 1.49, 1.51),
    ],
)
def test_each_limit_holds_on_its_side_and_fails_on_the_other(
    name: str, figures: dict[str, Any], measured: float, held: float, missed: float
) -> None:
    passed, met, failed = (limit(name, value, figures) for value in (held, measured, missed))

    assert [verdict.status for verdict in (passed, met, failed)] == ["passed", "passed", "failed"]
    assert {verdict.measured for verdict in (passed, met, failed)} == {measured}
    assert passed.message == ""
    assert failed.message


def test_a_drop_that_meets_its_limit_up_to_rounding_holds() -> None:
    drop = 0.3 - 0.29  # 0.010000000000000009

    assert limit("max_drop", 0.01, {"baseline": 0.3, "candidate": 0.29, "drop": drop}).status == "passed"


def test_a_gain_is_no_drop() -> None:
    assert limit("max_drop", 0.0, {"baseline": 0.5, "candidate": 0.6, "drop": -0.1}).status == "passed"


@pytest.mark.parametrize(("allowed", "status"), [(0.041, "passed"), (0.04, "passed"), (0.039, "failed")])
def test_a_relative_drop_is_a_share_of_float32(allowed: float, status: str) -> None:
    verdict = limit("max_drop", allowed, DROP, "relative")

    assert verdict.status == status
    assert verdict.measured == pytest.approx(0.04)


def test_a_relative_drop_of_a_negative_figure_keeps_its_sign() -> None:
    # log likelihoods, say: -2 to -3 is worse by half
    assert limit("max_drop", 0.4, {"baseline": -2.0, "candidate": -3.0, "drop": 1.0}, "relative").status == "failed"


@pytest.mark.parametrize("candidate", [0.0, 0.5])
def test_a_relative_drop_from_nothing_is_an_error(candidate: float) -> None:
    verdict = limit("max_drop", 1.0, {"baseline": 0.0, "candidate": candidate, "drop": -candidate}, "relative")

    assert (verdict.status, verdict.measured) == ("error", None)
    assert "undefined (float32 0.0" in verdict.message


@pytest.mark.parametrize("name", ["max_drop", "lower_bound", "upper_bound", "max_regression"])
def test_a_metric_that_was_not_measured_is_an_error_with_the_reason(name: str) -> None:
    verdict = limit(name, 0.5, None)

    assert (verdict.status, verdict.measured) == ("error", None)
    assert verdict.message == "not measured: the disk is full"


@pytest.mark.parametrize("bad", [NAN, INF, -INF])
@pytest.mark.parametrize("name", ["max_drop", "lower_bound", "upper_bound"])
def test_what_is_not_finite_is_an_error(name: str, bad: float) -> None:
    # each limit such that the bad value might compare as held
    value = -1e308 if name == "lower_bound" else 1e308

    verdict = limit(name, value, {"baseline": 0.5, "candidate": bad, "drop": 0.5 - bad})

    assert (verdict.status, verdict.measured) == ("error", None)
    assert "a missing value has not passed" in verdict.message


def test_a_figure_that_is_missing_is_an_error() -> None:
    verdict = limit("lower_bound", 0.0, {"baseline": 1.0, "candidate": 1.0, "value": None})

    assert (verdict.status, verdict.measured) == ("error", None)


def test_a_regression_without_blessed_results_is_an_error() -> None:
    verdict = limit("max_regression", 1.0, DROP)

    assert (verdict.status, verdict.measured) == ("error", None)
    assert "no blessed results to compare with" in verdict.message


def test_every_limit_is_judged_in_the_order_of_the_file() -> None:
    place = Place(Path("qgate.toml"), 1)
    thresholds = {
        "map": ThresholdConfig("map", {"lower_bound": 0.4, "max_drop": 0.01}, place),
        "speedup": ThresholdConfig("speedup", {"lower_bound": 1.2}, place),
        "other": ThresholdConfig("other", {"max_drop": 0.1}, place),
    }

    verdicts = judge(thresholds, {"speedup": SPEED, "map": DROP}, "it was skipped")

    assert [(verdict.metric, verdict.limit, verdict.status) for verdict in verdicts] == [
        ("map", "lower_bound", "passed"),
        ("map", "max_drop", "failed"),
        ("speedup", "lower_bound", "passed"),
        ("other", "max_drop", "error"),
    ]


@pytest.mark.parametrize(
    ("name", "value", "figures", "drop_type", "said"),
    [
        ("max_drop", 0.01, DROP, "absolute", "fell by 0.0200 from float32's 0.5000, to 0.4800; allowed is 0.0100"),
        ("max_drop", 0.01, DROP, "relative", "fell by 4.00% of float32's 0.5000, to 0.4800; allowed is 1.00%"),
        ("max_drop", 0.01, ERROR_RATE, "absolute", "rose by 0.0300 from float32's 0.1000, to 0.1300"),
        ("lower_bound", 0.6, DROP, "absolute", "is 0.4800 in int8, at least 0.6 is required (float32 has 0.5000)"),
        ("upper_bound", 0.1, ERROR_RATE, "absolute", "is 0.1300 in int8, at most 0.1 is required"),
        ("lower_bound", 2.0, SPEED, "absolute", "is 1.500, at least 2 is required (against float32's frozen form)"),
    ],
)
def test_a_miss_says_by_how_much(name: str, value: float, figures: Any, drop_type: Any, said: str) -> None:
    assert said in limit(name, value, figures, drop_type).message
