"""An int8 model against the one that was blessed, resample by resample, with only one of them at hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qgate.blessed import Blessed, Entry, load_blessed, measured_entries
from qgate.config.model import Place, ThresholdConfig
from qgate.engine.figures import Comparison, size_figures
from qgate.engine.judge import judge
from qgate.engine.regression import with_regressions
from qgate.metrics import MeanMetric
from qgate.results import ModelResult, Result, Verdict
from qgate.statistics import bootstrap_interval, resamples

CONDITIONS = {
    "data_sha256": "d" * 64,
    "evaluator": {"loader": "yolov5", "image_size": 640},
    "isa": ["avx2"],
    "seed": 5,
    "cpu": "this",
    "num_threads": 1,
}
SAMPLES = 200
RNG = np.random.default_rng(0)
HARD = RNG.normal(0.5, 0.2, SAMPLES)  # what float32 scores


class Score(MeanMetric):
    name = "score"

    def score(self, prediction: Any, target: Any) -> float:
        return float(prediction)


class ErrorRate(Score):
    name, higher_is_better = "score", False


def figures_of(int8: np.ndarray, metric: type[Score] = Score, *, float32: np.ndarray = HARD) -> dict[str, Any]:
    arms = [metric(()), metric(())]
    for arm, scores in zip(arms, (float32, int8), strict=True):
        for value in scores:
            arm.update("id", value, None)
    return Comparison(*arms, len(int8), 0.95, 5).figures()


def worse(by: float, seed: int = 1) -> np.ndarray:
    """Give an int8 arm that loses `by` on average, more on some samples than on others."""
    noise = np.random.default_rng(seed).normal(0, 0.02, SAMPLES)
    return HARD - by - (noise - noise.mean())


def bless(figures: dict[str, Any], **changes: Any) -> dict[str, Entry]:
    """Give entries as a file gives them back."""
    return dict(measured_entries({"score": figures}, {**CONDITIONS, **changes}))


def compare(now: dict[str, Any], blessed: dict[str, Entry] | None) -> dict[str, Any]:
    return with_regressions({"score": now}, blessed, CONDITIONS, 0.95)["score"]


def test_the_regression_is_what_int8_lost_since_then() -> None:
    found = compare(figures_of(worse(0.03)), bless(figures_of(worse(0.01))))

    assert found["blessed"] == pytest.approx(HARD.mean() - 0.01)
    assert found["regression"] == pytest.approx(0.02)


def test_its_interval_is_that_of_both_models_at_hand() -> None:
    before, after = worse(0.01, seed=1), worse(0.03, seed=2)

    low, high = compare(figures_of(after), bless(figures_of(before)))["regression_interval"]

    (rows,) = resamples(SAMPLES, 5)
    expected = bootstrap_interval(rows @ (before - after) / SAMPLES, 0.02, SAMPLES, 0.95)
    assert (low, high) == pytest.approx(expected, abs=1e-6)  # resamples are kept as float32
    # Student's of the differences, 199 degrees; and as if the models had been seen on different images
    error = np.std(before - after, ddof=1) / np.sqrt(SAMPLES)
    assert (low, high) == pytest.approx((0.02 - 1.972 * error, 0.02 + 1.972 * error), abs=0.2 * 1.972 * error)
    unpaired = 1.972 * np.sqrt((np.var(before) + np.var(after)) / SAMPLES)
    assert high - low < unpaired / 3


def test_of_an_error_rate_a_rise_is_a_regression() -> None:
    found = compare(figures_of(HARD + 0.03, ErrorRate), bless(figures_of(HARD + 0.01, ErrorRate)))

    assert found["regression"] == pytest.approx(0.02)
    assert found["regression_interval"] == pytest.approx((0.02, 0.02), abs=1e-6)


def test_a_gain_is_a_negative_regression() -> None:
    found = compare(figures_of(worse(0.01)), bless(figures_of(worse(0.03))))

    assert found["regression"] == pytest.approx(-0.02)
    assert found["regression_interval"][1] < 0


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"data_sha256": "e" * 64}, "other evaluation data"),
        ({"evaluator": {"loader": "yolov5", "image_size": 320}}, "other settings of the evaluator"),
        ({"isa": ["avx2", "avx512_vnni"]}, "another instruction set"),
        ({"seed": 6}, "another seed"),
        ({"seed": 6, "isa": []}, "another instruction set and another seed"),
    ],
)
def test_what_was_measured_otherwise_is_not_compared(changes: dict[str, Any], said: str) -> None:
    found = compare(figures_of(worse(0.0)), bless(figures_of(worse(0.0)), **changes))

    assert found["not_comparable"].startswith(f"not comparable: the blessed value is of {said}; ")
    assert "regression" not in found


def test_another_cpu_of_the_same_instruction_set_is_compared() -> None:
    blessed = bless(figures_of(worse(0.0)), cpu="that", num_threads=8)

    assert compare(figures_of(worse(0.0)), blessed)["regression"] == 0


def test_an_entry_that_does_not_say_its_conditions_is_not_compared() -> None:
    (entry,) = bless(figures_of(worse(0.0))).values()
    silent = Entry(entry.value, {}, entry.resampled)

    assert "not_comparable" in compare(figures_of(worse(0.0)), {"score": silent})


def test_an_entry_without_resamples_gives_no_interval() -> None:
    (entry,) = bless(figures_of(worse(0.0))).values()

    found = compare(figures_of(worse(0.01)), {"score": Entry(entry.value, entry.conditions)})

    assert found["regression"] == pytest.approx(0.01)
    assert found["regression_interval"] is None


def test_what_is_not_blessed_is_left_as_it_is() -> None:
    figures = figures_of(worse(0.0))

    assert compare(figures, {}) == figures


def test_a_size_is_compared_as_it_stands_and_on_any_machine() -> None:
    blessed = dict(measured_entries({"size_reduction": size_figures(1000, 250)}, CONDITIONS))
    elsewhere = {**CONDITIONS, "isa": [], "data_sha256": "e"}

    found = with_regressions({"size_reduction": size_figures(1000, 270)}, blessed, elsewhere, 0.95)

    assert found["size_reduction"]["regression"] == pytest.approx(0.02)


def speed_of(value: float, half: float) -> dict[str, Any]:
    interval = (value - half, value + half)
    return {"value": value, "interval": interval, "baseline_form": "frozen", "forms": {"int8": 0.01}}


def regress_speed(now: dict[str, Any], then: dict[str, Any], **changes: Any) -> dict[str, Any]:
    blessed = dict(measured_entries({"speedup": then}, {**CONDITIONS, **changes}))
    return with_regressions({"speedup": now}, blessed, CONDITIONS, 0.95)["speedup"]


def test_a_speedup_is_as_unsure_as_both_measurements_together() -> None:
    found = regress_speed(speed_of(1.4, 0.04), speed_of(1.5, 0.03))

    assert found["regression"] == pytest.approx(0.1)
    assert found["regression_interval"] == pytest.approx((0.05, 0.15))  # 3, 4, 5


def test_the_interval_of_two_speedups_covers_their_difference_as_often_as_it_says() -> None:
    rng, covered = np.random.default_rng(0), 0
    for then, now in zip(rng.normal(1.5, 0.03, 2000), rng.normal(1.4, 0.02, 2000), strict=True):
        low, high = regress_speed(speed_of(now, 1.96 * 0.02), speed_of(then, 1.96 * 0.03))["regression_interval"]
        covered += low <= 0.1 <= high

    assert covered / 2000 == pytest.approx(0.95, abs=0.015)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"cpu": "that"}, "another CPU"),
        ({"num_threads": 2}, "another number of threads"),
        ({"isa": []}, "another instruction set"),
    ],
)
def test_a_speedup_of_another_machine_is_not_compared(changes: dict[str, Any], said: str) -> None:
    found = regress_speed(speed_of(1.4, 0.04), speed_of(1.5, 0.03), **changes)

    assert found["not_comparable"].startswith(f"not comparable: the blessed value is of {said}; ")


def test_a_speedup_against_another_form_is_not_compared() -> None:
    found = regress_speed(speed_of(1.4, 0.04), {**speed_of(1.5, 0.03), "baseline_form": "eager"})

    assert "another baseline form" in found["not_comparable"]


def test_a_speedup_does_not_depend_on_the_evaluation_data() -> None:
    assert "regression" in regress_speed(speed_of(1.4, 0.04), speed_of(1.5, 0.03), data_sha256="e", seed=1)


@pytest.mark.parametrize("figures", [figures_of(worse(0.1)), speed_of(1.5, 0.1)])
def test_what_is_being_blessed_is_no_regression_of_itself(figures: dict[str, Any]) -> None:
    found = compare(figures, None)

    assert (found["regression"], found["regression_interval"]) == (0, (0, 0))


@pytest.mark.parametrize(
    "figures", [figures_of(worse(0.1)[:5], float32=HARD[:5]), {**speed_of(1.5, 0.1), "interval": None}]
)
def test_what_later_runs_could_not_be_compared_with_is_not_known_to_be_as_good_as_itself(
    figures: dict[str, Any],
) -> None:
    found = compare(figures, None)

    assert (found["regression"], found["regression_interval"]) == (0, None)
    assert judged(found)["max_regression"] == "inconclusive"


def test_a_size_that_is_being_blessed_needs_no_interval() -> None:
    found = with_regressions({"size_reduction": size_figures(100, 25)}, None, CONDITIONS, 0.95)
    table = ThresholdConfig("size_reduction", {"max_regression": 0.0}, Place(Path("qgate.toml"), 1))

    assert [verdict.status for verdict in judge([table], found, "", SAMPLES)] == ["passed"]


def test_what_has_no_value_is_not_blessed() -> None:
    figures = figures_of(np.full(SAMPLES, np.nan))

    assert bless(figures) == {}
    assert "regression" not in compare(figures, None)


def judged(figures: dict[str, Any]) -> dict[str, str]:
    limits = {"max_regression": 0.005, **({"max_drop": 0.005} if "drop" in figures else {})}
    tables = [ThresholdConfig("score", limits, Place(Path("qgate.toml"), 1))]
    verdicts: tuple[Verdict, ...] = judge(tables, {"score": figures}, "", SAMPLES)
    return {verdict.limit: verdict.status for verdict in verdicts}


def test_ten_small_drops_cannot_pass_one_by_one(tmp_path: Path) -> None:
    """Each change loses 0.004, and is compared with a float32 model that lost what came before."""
    path = tmp_path / "qgate-blessed.json"
    accepted = ModelResult({}, None, SAMPLES, {"score": figures_of(HARD)}, (), {}, conditions=CONDITIONS)
    Blessed().updated(Result("0", "now", "", {}, {"m": accepted})).save(path)

    seen = []
    for change in range(1, 11):
        figures = figures_of(HARD - 0.004 * change, float32=HARD - 0.004 * (change - 1))
        seen.append(judged(compare(figures, load_blessed(path).models["m"])))

    assert [found["max_drop"] for found in seen] == ["passed"] * 10
    assert [found["max_regression"] for found in seen] == ["passed"] + ["failed"] * 9
