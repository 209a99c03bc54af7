from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pytest

from qgate.config.model import Place, ThresholdConfig
from qgate.engine.judge import judge

if TYPE_CHECKING:
    from qgate.results import Verdict

NAN, INF = float("nan"), float("inf")
NUM_SAMPLES = 100


def accuracy(
    before: float, after: float, spread: float | None = 0.0, *, higher_is_better: bool = True, **more: Any
) -> dict[str, Any]:
    """Give figures whose drop is known up to `spread` on either side, or no interval where it is None."""
    drop = before - after if higher_is_better else after - before
    share = drop / abs(before) if before else None
    return {
        "baseline": before,
        "candidate": after,
        "drop": drop,
        "relative_drop": share,
        "drop_interval": around(drop, spread),
        "relative_drop_interval": around(share, spread),
        "higher_is_better": higher_is_better,
        **more,
    }


def around(value: float | None, spread: float | None) -> tuple[float, float] | None:
    return None if value is None or spread is None else (value - spread, value + spread)


DROP = accuracy(0.5, 0.48)
ERROR_RATE = accuracy(0.10, 0.13, higher_is_better=False)
SIZE = {"baseline": 1000, "candidate": 270, "value": 0.73}
SPEED = {
    "baseline": 0.03,
    "candidate": 0.02,
    "value": 1.5,
    "interval": (1.4, 1.6),
    "baseline_form": "frozen",
    "forms": {"int8": 0.02},
}
EXACT_SPEED = {**SPEED, "interval": (1.5, 1.5)}


def table(limits: dict[str, float], drop_type: Literal["absolute", "relative"] = "absolute") -> ThresholdConfig:
    return ThresholdConfig("quality", limits, Place(Path("qgate.toml"), 1), drop_type)


def limit(
    name: str, value: float, figures: dict[str, Any] | None, drop_type: Literal["absolute", "relative"] = "absolute"
) -> Verdict:
    """Judge one limit of one metric."""
    metrics = {"quality": figures} if figures else {}
    (verdict,) = judge([table({name: value}, drop_type)], metrics, "the disk is full", NUM_SAMPLES)
    return verdict


@pytest.mark.parametrize(
    ("name", "figures", "measured", "held", "missed"),
    [
        ("max_drop", DROP, 0.02, 0.021, 0.019),
        ("max_drop", ERROR_RATE, 0.03, 0.031, 0.029),
        ("lower_bound", DROP, 0.48, 0.479, 0.481),
        ("upper_bound", ERROR_RATE, 0.13, 0.131, 0.129),
        ("lower_bound", SIZE, 0.73, 0.72, 0.74),
        ("lower_bound", EXACT_SPEED, 1.5, 1.49, 1.51),
    ],
)
def test_each_limit_holds_on_its_side_and_fails_on_the_other(
    name: str, figures: dict[str, Any], measured: float, held: float, missed: float
) -> None:
    passed, met, failed = (limit(name, value, figures) for value in (held, measured, missed))

    assert [verdict.status for verdict in (passed, met, failed)] == ["passed", "passed", "failed"]
    assert [verdict.measured for verdict in (passed, met, failed)] == [pytest.approx(measured)] * 3
    assert passed.message == ""
    assert failed.message


def test_a_drop_that_meets_its_limit_up_to_rounding_holds() -> None:
    assert 0.3 - 0.29 > 0.01
    assert limit("max_drop", 0.01, accuracy(0.3, 0.29)).status == "passed"


def test_a_gain_is_no_drop() -> None:
    assert limit("max_drop", 0.0, accuracy(0.5, 0.6)).status == "passed"


@pytest.mark.parametrize(("allowed", "status"), [(0.041, "passed"), (0.04, "passed"), (0.039, "failed")])
def test_a_relative_drop_is_a_share_of_float32(allowed: float, status: str) -> None:
    verdict = limit("max_drop", allowed, DROP, "relative")

    assert verdict.status == status
    assert verdict.measured == pytest.approx(0.04)


def test_a_relative_drop_of_a_negative_figure_keeps_its_sign() -> None:
    # log likelihoods, say: -2 to -3 is worse by half
    assert limit("max_drop", 0.4, accuracy(-2.0, -3.0), "relative").status == "failed"


@pytest.mark.parametrize("candidate", [0.0, 0.5])
def test_a_relative_drop_from_nothing_is_an_error(candidate: float) -> None:
    verdict = limit("max_drop", 1.0, accuracy(0.0, candidate), "relative")

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

    verdict = limit(name, value, accuracy(0.5, bad))

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
    tables = [
        ThresholdConfig("map", {"lower_bound": 0.4, "max_drop": 0.01}, place),
        ThresholdConfig("speedup", {"lower_bound": 1.2}, place),
        ThresholdConfig("other", {"max_drop": 0.1}, place),
    ]

    verdicts = judge(tables, {"speedup": SPEED, "map": DROP}, "it was skipped", NUM_SAMPLES)

    assert [(verdict.metric, verdict.limit, verdict.status) for verdict in verdicts] == [
        ("map", "lower_bound", "passed"),
        ("map", "max_drop", "failed"),
        ("speedup", "lower_bound", "passed"),
        ("other", "max_drop", "error"),
    ]


@pytest.mark.parametrize(
    ("name", "value", "figures", "drop_type", "said"),
    [
        (
            *("max_drop", 0.01, DROP, "absolute"),
            "fell by 0.0200 from float32's 0.5000, to 0.4800 (interval 0.0200 to 0.0200); allowed is 0.0100",
        ),
        (
            *("max_drop", 0.01, DROP, "relative"),
            "fell by 4.00% of float32's 0.5000, to 0.4800 (interval 4.00% to 4.00%); allowed is 1.00%",
        ),
        ("max_drop", 0.01, ERROR_RATE, "absolute", "rose by 0.0300 from float32's 0.1000, to 0.1300"),
        ("lower_bound", 0.6, DROP, "absolute", "is 0.4800 in int8, at least 0.6 is required (float32 has 0.5000)"),
        ("upper_bound", 0.1, ERROR_RATE, "absolute", "is 0.1300 in int8, at most 0.1 is required"),
        (
            *("lower_bound", 2.0, SPEED, "absolute"),
            "is 1.500 (interval 1.4000 to 1.6000), at least 2 is required (against float32's frozen form)",
        ),
    ],
)
def test_a_miss_says_by_how_much(name: str, value: float, figures: Any, drop_type: Any, said: str) -> None:
    assert said in limit(name, value, figures, drop_type).message


INSIDE = accuracy(0.5, 0.48, 0.01)  # a drop of 0.01 to 0.03
INSIDE_ERRORS = accuracy(0.10, 0.12, 0.01, higher_is_better=False)


@pytest.mark.parametrize("figures", [INSIDE, INSIDE_ERRORS], ids=["score", "error rate"])
@pytest.mark.parametrize(
    ("allowed", "status"),
    [(0.031, "passed"), (0.03, "passed"), (0.029, "inconclusive"), (0.01, "inconclusive"), (0.009, "failed")],
)
def test_a_drop_passes_where_its_whole_interval_is_within(figures: Any, allowed: float, status: str) -> None:
    verdict = limit("max_drop", allowed, figures)

    assert verdict.status == status
    assert verdict.interval == pytest.approx((0.01, 0.03))


@pytest.mark.parametrize(
    ("required", "status"),
    [(1.39, "passed"), (1.4, "passed"), (1.41, "inconclusive"), (1.6, "inconclusive"), (1.61, "failed")],
)
def test_a_speedup_passes_where_its_whole_interval_is_above(required: float, status: str) -> None:
    verdict = limit("lower_bound", required, SPEED)

    assert verdict.status == status
    assert verdict.samples_needed is None  # images would not settle it


@pytest.mark.parametrize(("name", "value"), [("lower_bound", 0.48), ("upper_bound", 0.48)])
def test_what_int8_must_reach_on_this_data_is_exact(name: str, value: float) -> None:
    assert limit(name, value, INSIDE).status == "passed"
    assert limit(name, value + (0.001 if name == "lower_bound" else -0.001), INSIDE).status == "failed"


def test_without_an_interval_nothing_is_settled() -> None:
    verdict = limit("max_drop", 0.5, accuracy(0.5, 0.48, None))

    assert (verdict.status, verdict.interval, verdict.samples_needed) == ("inconclusive", None, None)
    assert "too few evaluation samples to say how sure that is" in verdict.message


def test_an_inconclusive_drop_says_how_many_samples_would_settle_it() -> None:
    # the limit is half as far away as the bound: four times the 100 samples
    verdict = limit("max_drop", 0.025, INSIDE)

    assert verdict.status == "inconclusive"
    assert verdict.samples_needed in (400, 401)
    assert verdict.message == (
        "fell by 0.0200 from float32's 0.5000, to 0.4800 (interval 0.0100 to 0.0300); allowed is 0.0250: not settled; "
        f"about {verdict.samples_needed} evaluation samples like these would settle it"
    )


def test_a_limit_at_the_measured_drop_is_better_moved() -> None:
    verdict = limit("max_drop", 0.02, INSIDE)

    assert (verdict.status, verdict.samples_needed) == ("inconclusive", None)
    assert "no number of samples would settle that; move it" in verdict.message


def test_an_inconclusive_speedup_is_for_a_quiet_machine() -> None:
    assert "raise max_seconds" in limit("lower_bound", 1.5, SPEED).message


SLOWEST = [
    {"layer": "stem.conv", "int8": 0.0041, "float32": 0.0039},
    {"layer": "head", "int8": 0.00000512, "float32": 0.0},
]


@pytest.mark.parametrize(("required", "status"), [(1.55, "inconclusive"), (1.61, "failed")])
def test_a_speedup_that_is_not_shown_names_the_layers_that_cost_most(required: float, status: str) -> None:
    verdict = limit("lower_bound", required, {**SPEED, "slowest": SLOWEST})

    assert verdict.status == status
    assert verdict.message.startswith(
        f"is 1.500 (interval 1.4000 to 1.6000), at least {required} is required (against float32's frozen form); most "
        'time is lost in "stem.conv" (4.1 ms int8, 3.9 ms float32), "head" (0.00512 ms int8, 0 ms float32), '
        "see `qgate explain`"
    )


REGRESSED = {**DROP, "blessed": 0.485, "regression": 0.005, "regression_interval": (0.003, 0.007)}


@pytest.mark.parametrize(("allowed", "status"), [(0.007, "passed"), (0.005, "inconclusive"), (0.002, "failed")])
def test_a_regression_is_judged_by_its_interval(allowed: float, status: str) -> None:
    verdict = limit("max_regression", allowed, REGRESSED)

    assert (verdict.status, verdict.measured, verdict.interval) == (status, 0.005, (0.003, 0.007))
    assert status == "passed" or "is worse by 0.0050 than the blessed 0.4850" in verdict.message


def test_a_size_has_no_chance_in_it() -> None:
    grown = {**SIZE, "blessed": 0.74, "regression": 0.01, "regression_interval": None}

    assert limit("max_regression", 0.01, grown).status == "passed"
    assert limit("max_regression", 0.009, grown).status == "failed"


def test_what_is_not_comparable_is_an_error_that_says_so() -> None:
    verdict = limit("max_regression", 1.0, {**DROP, "not_comparable": "not comparable: of other data"})

    assert (verdict.status, verdict.measured) == ("error", None)
    assert verdict.message == "not comparable: of other data"


def judge_slice(limits: dict[str, float], found: dict[str, Any] | None, min_samples: int = 10) -> Verdict:
    where = {"class": "cat"}
    threshold = ThresholdConfig("q", limits, Place(Path("q"), 1), where=where, min_samples=min_samples)
    others = {**accuracy(0.5, 0.1), "where": {"class": "dog"}, "support": 50}
    listed = [others] if found is None else [others, {**found, "where": where}]
    (verdict,) = judge([threshold], {"q": {**DROP, "limited_slices": listed}}, "why", NUM_SAMPLES)
    assert verdict.slice == where
    return verdict


def test_a_slice_is_judged_by_its_own_figures() -> None:
    verdict = judge_slice({"max_drop": 0.1}, {**accuracy(0.9, 0.85, 0.01), "support": 10})

    assert (verdict.status, verdict.measured) == ("passed", pytest.approx(0.05))


@pytest.mark.parametrize(("support", "needed"), [(0, 1), (9, 10), (99, 100)])
@pytest.mark.parametrize("limits", [{"max_drop": 1.0}, {"lower_bound": 0.0}, {"max_regression": 1.0}])
def test_a_slice_that_rests_on_too_little_is_an_error(support: int, needed: int, limits: dict[str, float]) -> None:
    figures = {**accuracy(0.9, 0.9), "support": support, "regression": 0.0, "regression_interval": (0.0, 0.0)}

    verdict = judge_slice(limits, figures, needed)

    assert (verdict.status, verdict.measured) == ("error", None)
    assert verdict.message.startswith(
        f"the slice rests on {support} targets, fewer than min_samples = {needed}; evaluate on more data"
    )


def test_a_slice_that_was_not_measured_is_an_error() -> None:
    assert judge_slice({"lower_bound": -1.0}, None).message == "not measured: why"


def test_where_float32_scores_nothing_nothing_is_shown() -> None:
    verdict = limit("max_drop", 0.01, accuracy(0.0, 0.0, compares_with="targets"))

    assert (verdict.measured, verdict.status) == (None, "error")
    assert verdict.message.startswith("float32 itself scores 0, so nothing can drop; see that targets,")

    no_error = accuracy(0.0, 0.0, higher_is_better=False, compares_with="targets")
    no_distance = accuracy(0.0, 0.0, compares_with="float32")
    assert [limit("max_drop", 0.01, figures).status for figures in (no_error, no_distance)] == ["passed"] * 2
