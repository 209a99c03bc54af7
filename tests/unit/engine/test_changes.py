from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from qgate.engine.changes import ChangedFigure, RunChanges, compare
from qgate.resampled import encode
from qgate.results import ModelResult, Result, Verdict

if TYPE_CHECKING:
    from collections.abc import Mapping

RNG = np.random.default_rng(0)
SPREAD = RNG.normal(0, 0.02, 1000)  # what both runs share: the images that a resample holds
CONDITIONS = {
    "data_sha256": "d",
    "evaluator": {"size": 640},
    "seed": 0,
    "isa": ["avx2"],
    "cpu": "this",
    "num_threads": 1,
}


def accuracy(value: float, noise: float = 0.001, **changes: Any) -> dict[str, Any]:
    own = np.random.default_rng(int(value * 1e4)).normal(0, noise, 1000)
    figures = {"baseline": 0.85, "candidate": value, "drop": 0.85 - value, "samples": 192, "higher_is_better": True}
    return {**figures, "resampled": encode(value + SPREAD + own), **changes}


def speed(value: float, spread: float) -> dict[str, Any]:
    return {
        "baseline": value,
        "candidate": 1.0,
        "value": value,
        "interval": [value - spread, value + spread],
        "baseline_form": "frozen",
        "forms": {"frozen": value, "int8": 1.0},
    }


def result(metrics: Mapping[str, Any], *verdicts: Verdict, **conditions: Any) -> Result:
    model = ModelResult({}, None, 192, dict(metrics), verdicts, {}, conditions={**CONDITIONS, **conditions})
    return Result("0", "2026-01-01T00:00:00+00:00", "", {}, {"net": model})


def changed(changes: RunChanges, name: str) -> ChangedFigure:
    (figure,) = [figure for figure in changes.models["net"].figures if figure.name == name]
    return figure


@pytest.mark.parametrize(
    ("value", "conclusion"), [(0.83, "same"), (0.82, "worse"), (0.84, "better"), (0.8299, "unclear")]
)
def test_a_change_is_judged_resample_by_resample(value: float, conclusion: str) -> None:
    figure = changed(compare(result({"map": accuracy(0.83)}), result({"map": accuracy(value)}), 0.95), "map")

    assert figure.conclusion == conclusion
    assert figure.worse_by == pytest.approx(0.83 - value)
    assert figure.interval is not None
    # unpaired, the shared spread of 0.02 would make each interval 0.11 wide
    assert figure.interval[1] - figure.interval[0] < 0.01


def test_less_is_better_where_the_metric_says_so() -> None:
    one, two = (accuracy(value, higher_is_better=False) for value in (0.2, 0.3))

    assert (
        changed(compare(result({"invented": one}), result({"invented": two}), 0.95), "invented").conclusion == "worse"
    )


def test_speeds_are_independent_measurements() -> None:
    before, after = result({"speedup": speed(2.0, 0.3)}), result({"speedup": speed(1.6, 0.4)})

    figure = changed(compare(before, after, 0.95), "speedup")

    assert figure.interval == pytest.approx((0.4 - 0.5, 0.4 + 0.5))  # 3, 4, 5
    assert figure.conclusion == "unclear"


def test_a_size_is_exact() -> None:
    sizes = [{"baseline": 100, "candidate": size, "value": 1 - size / 100} for size in (26, 27)]
    before, after = (result({"size_reduction": size}) for size in sizes)

    assert changed(compare(before, after, 0.95), "size_reduction").conclusion == "worse"


def test_without_resamples_nothing_is_claimed() -> None:
    short = accuracy(0.83) | {"resampled": None}

    figure = changed(compare(result({"map": short}), result({"map": accuracy(0.7)}), 0.95), "map")

    assert (figure.conclusion, figure.interval) == ("unclear", None)
    assert figure.worse_by == pytest.approx(0.13)


@pytest.mark.parametrize(
    ("conditions", "differences"),
    [
        ({"data_sha256": "e"}, {"map": "other evaluation data", "speedup": "", "size_reduction": ""}),
        ({"cpu": "that"}, {"map": "", "speedup": "another CPU", "size_reduction": ""}),
        ({"isa": []}, {"map": "another instruction set", "speedup": "another instruction set", "size_reduction": ""}),
    ],
)
def test_what_was_measured_otherwise_is_not_compared(conditions: Any, differences: dict[str, str]) -> None:
    metrics = {
        "map": accuracy(0.83),
        "speedup": speed(2.0, 0.1),
        "size_reduction": {"baseline": 4, "candidate": 1, "value": 0.75},
    }

    changes = compare(result(metrics), result(metrics, **conditions), 0.95)

    assert {figure.name: figure.differences for figure in changes.models["net"].figures} == differences
    conclusions = {figure.name: figure.conclusion for figure in changes.models["net"].figures}
    assert [conclusions[name] == "not comparable" for name in differences] == [
        bool(why) for why in differences.values()
    ]


def test_what_is_missing_in_one_run_is_missing() -> None:
    before = result({"map": accuracy(0.83)}, Verdict("map", "max_drop", 0.1, 0.02, "passed"))
    after = result({}, Verdict("map", "max_drop", 0.1, None, "error", "not measured: boom"))

    for one, two in ((before, after), (after, before)):
        assert changed(compare(one, two, 0.95), "map").conclusion == "missing"


def test_verdicts_are_matched_by_their_limit() -> None:
    of_person = Verdict("map", "max_drop", 0.1, 0.05, "passed", slice={"class": "person"})
    before = result({}, Verdict("map", "max_drop", 0.1, 0.05, "passed"), of_person)
    after = result(
        {}, replace(of_person, status="failed", limit_value=0.01), Verdict("map", "lower_bound", 0.5, 0.6, "passed")
    )

    verdicts = {one.name: one for one in compare(before, after, 0.95).models["net"].verdicts}

    assert {name: (one.before, one.after) for name, one in verdicts.items()} == {
        "map max_drop": ("passed", None),
        "map[class=person] max_drop": ("passed", "failed"),
        "map lower_bound": (None, "passed"),
    }
    assert all(one.is_changed for one in verdicts.values())
    person = verdicts["map[class=person] max_drop"]
    assert (person.limit_before, person.limit_after) == (0.1, 0.01)


def test_the_slices_that_got_worse_are_named_the_worst_first() -> None:
    def slices(**values: float) -> dict[str, Any]:
        return {
            "class": {
                name: {"candidate": value, "support": 9 if name == "rare" else 40} for name, value in values.items()
            }
        }

    before = result({"map": accuracy(0.83, slices=slices(cat=0.8, dog=0.7, bird=0.6, rare=0.9))})
    after = result({"map": accuracy(0.82, slices=slices(cat=0.79, dog=0.5, bird=0.61, rare=0.1, new=0.2))})

    found = compare(before, after, 0.95).models["net"].slices

    assert [(one.name, one.before, one.after, one.support) for one in found] == [
        ("map class dog", 0.7, 0.5, 40),
        ("map class cat", 0.8, 0.79, 40),
    ]


def test_a_model_that_only_one_run_has_is_told() -> None:
    alone = replace(result({"map": accuracy(0.83)}), models={"other": result({}).models["net"]})

    found = compare(result({"map": accuracy(0.83)}), alone, 0.95).models

    assert {name: one.only_in for name, one in found.items()} == {"net": 1, "other": 2}
