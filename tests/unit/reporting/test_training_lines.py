"""What a report says of a training: how it went, what it bought, and whether it was needed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from qgate.reporting.console import render
from qgate.reporting.markdown import markdown
from qgate.results import ModelResult, Result, load_results

CURVE = [{"epoch": epoch, "loss": 0.1, "validation_loss": 0.5 / (1 + epoch), "seconds": 30.0} for epoch in range(25)]
TRAINING: dict[str, Any] = {
    "loss": "distillation",
    "samples": 102,
    "validation_samples": 26,
    "left_out": 0,
    "device": "cpu",
    "processes": 1,
    "seconds": 720.0,
    "resumed_after": 0,
    "best_epoch": 24,
    "curve": CURVE,
    "untrained_status": "failed",
}
PTQ = {
    "value": 0.3247,
    "drop": 0.0146,
    "drop_interval": (0.005, 0.024),
    "gain": 0.0091,
    "gain_interval": (0.0012, 0.017),
}
MODEL = ModelResult(
    {"approach": "qat", "backend": "fbgemm"},
    None,
    128,
    {"map": {"baseline": 0.3393, "candidate": 0.3338, "drop": 0.0055, "ptq": PTQ}},
    (),
    {},
    training=TRAINING,
)


def said(**changes: Any) -> str:
    """Render a result with these changes of its training; `interval` is that of the gain."""
    interval = changes.pop("interval", PTQ["gain_interval"])
    metrics = {"map": {**MODEL.metrics["map"], "ptq": {**PTQ, "gain_interval": interval}}}
    model = replace(MODEL, training={**TRAINING, **changes}, metrics=metrics)
    return " ".join(render(result_of(model), width=200).split())


def result_of(model: ModelResult) -> Result:
    return Result("0.1.0", "2026-01-01T00:00:00+00:00", "0" * 64, {}, {"yolov5n": model})


def test_it_says_how_training_went() -> None:
    assert (
        "training: distillation, 102 samples and 26 to validate with, 12.0 minutes on cpu; epoch 24 of 24 is kept"
        in said()
    )
    assert "102 samples and 26 to validate with (7 left out: they are evaluation samples)" in said(left_out=7)
    assert "on cuda:0, 2 processes;" in said(device="cuda:0", processes=2)
    assert "no epoch was better than no training" in said(best_epoch=0)


def test_a_long_curve_is_thinned_and_keeps_its_ends() -> None:
    text = said()

    assert "curve: validation loss by epoch: 0: 0.5, 3: 0.125," in text
    assert "24: 0.02 " in text
    assert text.count(": 0.") - text.count("gained") <= 12


def test_it_says_what_training_bought_with_its_interval() -> None:
    assert "bought: map 0.3247 without training, 0.3338 with: gained +0.0091 (+0.0012 to +0.0170)" in said()
    assert "gained +0.0091 advice" in said(interval=None)


@pytest.mark.parametrize(
    ("changes", "advice"),
    [
        ({"untrained_status": "passed"}, 'every limit on accuracy holds without training: approach = "ptq" is enough'),
        ({}, "training is worth its 12.0 minutes: limits do not hold without it, and the gain is no chance"),
        (
            {"interval": (-0.003, 0.02)},
            "the evaluation samples do not show that 12.0 minutes of it gained anything",
        ),
    ],
)
def test_a_user_who_does_not_need_training_learns_that(changes: dict[str, Any], advice: str) -> None:
    assert advice in said(**changes)


def test_without_training_nothing_is_said_of_it() -> None:
    model = replace(MODEL, training={}, metrics={"map": {"baseline": 0.3393, "candidate": 0.3338, "drop": 0.0055}})

    assert not {"training:", "curve:", "bought:", "advice:"} & set(render(result_of(model)).split())


def test_markdown_and_json_have_it_too(tmp_path: Any) -> None:
    assert "- advice: training is worth" in markdown(result_of(MODEL))
    result_of(MODEL).save(tmp_path / "results.json")
    assert load_results(tmp_path / "results.json").models["yolov5n"].training == TRAINING
