"""What a report says beside its limits, on a console and in Markdown: losers, times, what is missing, what to do."""

from __future__ import annotations

import copy
import json
import random
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from qgate.reporting.console import render
from qgate.reporting.github import annotation_lines
from qgate.reporting.gitlab import GitlabReporter
from qgate.reporting.junit import properties, run_properties
from qgate.reporting.markdown import markdown
from qgate.results import Artifact, ModelResult, Result, Verdict, result_from_document

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def of_slice(baseline: float, candidate: float, support: int, **more: Any) -> dict[str, Any]:
    drop = round(baseline - candidate, 9)
    return {
        "baseline": baseline,
        "candidate": candidate,
        "drop": drop,
        "relative_drop": None,
        "support": support,
        **more,
    }


CLASSES = {
    "cat": of_slice(0.80, 0.70, 40, drop_interval=[0.05, 0.15]),
    "dog": of_slice(0.80, 0.75, 30),
    "bird": of_slice(0.50, 0.55, 30),
    "rare": of_slice(0.90, 0.10, 9),
    **{f"fine {index}": of_slice(0.5, 0.5 - index / 1000, 20) for index in range(1, 9)},
}
FORMS = {"eager": 0.04, "channels_last": 0.03, "frozen": 0.02, "int8": 0.01}
METRICS: dict[str, dict[str, Any]] = {
    "size_reduction": {"baseline": 400, "candidate": 100, "value": 0.75},
    "map": {"baseline": 0.6, "candidate": 0.58, "drop": 0.02, "slices": {"class": CLASSES}},
    "iou": {"baseline": 0.6, "candidate": 0.59, "drop": 0.01, "slices": {"class": {"cow": of_slice(0.5, 0.4, 20)}}},
    "speedup": {"baseline": 0.02, "candidate": 0.01, "value": 2.0, "baseline_form": "frozen", "forms": FORMS},
}
HELD = (
    Verdict("size_reduction", "lower_bound", 0.7, 0.75, "passed"),
    Verdict("map", "max_drop", 0.05, 0.02, "passed", interval=(0.01, 0.03)),
    Verdict("iou", "max_drop", 0.05, 0.01, "passed", interval=(0.0, 0.02)),
    Verdict("speedup", "lower_bound", 1.5, 2.0, "passed", interval=(1.9, 2.1)),
)
MODEL = ModelResult(
    quantization={"approach": "ptq", "backend": "fused"},
    artifact=Artifact(".qgate/artifacts/net.pt", 100, "a" * 64),
    num_evaluation_samples=128,
    metrics=METRICS,
    verdicts=HELD,
    seconds={"load": 0.1, "evaluate": 3.0, "timing": 9.0, "total": 12.1},
    kernels={f"kernel {count}": count for count in range(1, 11)},
)


def result(model: ModelResult = MODEL, **changes: Any) -> Result:
    values: dict[str, Any] = {"environment": {"cpu": "a CPU", "torch": "2"}, "models": {"net": model}}
    return Result("0", "2026-01-01T00:00:00+00:00", "", **values | changes)


def with_verdict(metric: str, **changes: Any) -> ModelResult:
    """Give the model with one verdict changed."""
    verdicts = (replace(verdict, **changes) if verdict.metric == metric else verdict for verdict in HELD)
    return replace(MODEL, verdicts=tuple(verdicts))


def with_figures(metric: str, model: ModelResult = MODEL, **figures: Any) -> ModelResult:
    return replace(model, metrics={**model.metrics, metric: {**model.metrics[metric], **figures}})


def steps(model: ModelResult) -> list[str]:
    """Give what is proposed, each as one line."""
    lines = render(result(model), width=300).splitlines()
    return [line.removeprefix("next: ") for line in lines if line.startswith("next: ")]


def row(text: str, name: str) -> list[str]:
    (line,) = [line for line in text.splitlines() if line.startswith(f"{name} ")]
    return line.removeprefix(name).split()


@pytest.mark.parametrize("width", [80, 120, 200])
@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_every_part_fits_the_terminal_in_its_order(width: int, encoding: str) -> None:
    text = render(result(), width=width, encoding=encoding)

    assert all(len(line) <= width for line in text.splitlines())
    parts = ("qgate: PASSED", "net: int8", "limit ", "lost most ", "speed ", "int8 ran by:", "time:", "next:")
    places = [text.index(part) for part in parts]
    assert places == sorted(places)
    assert text.isascii() == (encoding == "ascii")


def test_the_slices_that_lost_most_are_those_of_enough_targets() -> None:
    text = render(result(), width=120)

    table = text[text.index("lost most") : text.index("without an interval: its targets are in too few samples")]
    names = [line.partition(" 0.")[0].strip() for line in table.splitlines()[1:] if line]
    assert names == [*("map class cat", "map class dog", "map class fine 8", "map class fine 7", "map class fine 6")]
    assert row(text, "map class cat") == ["0.8000", "0.7000", "0.1000", "██████████", "0.0500..0.1500", "40"]
    assert row(text, "map class dog") == ["0.8000", "0.7500", "0.0500", "█████", "30"]


def test_where_every_slice_has_an_interval_none_is_missed() -> None:
    of_cats = copy.deepcopy(result())
    del of_cats.models["net"].metrics["map"]["slices"]["class"]["dog"]
    for index in range(1, 9):
        del of_cats.models["net"].metrics["map"]["slices"]["class"][f"fine {index}"]

    assert "without an interval" not in render(of_cats, width=120)


def test_the_slices_are_those_of_the_metric_that_missed_its_limit() -> None:
    text = render(result(with_verdict("iou", status="failed", message="fell")), width=120)

    assert "iou class cow" in text
    assert "map class" not in text


def test_times_are_drawn_the_slowest_first() -> None:
    lines = render(result(), width=120).splitlines()

    first = next(index for index, line in enumerate(lines) if line.startswith("speed  "))
    assert [line.split() for line in lines[first + 1 : first + 5]] == [
        ["eager", "40.0", "ms", "█" * 20],
        ["channels_last", "30.0", "ms", "█" * 15],
        ["frozen", "20.0", "ms", "█" * 10, "compared", "with"],
        ["int8", "10.0", "ms", "█" * 5],
    ]


def test_the_layers_that_cost_most_are_shown_where_they_are_known() -> None:
    slow = with_figures("speedup", slowest=[{"layer": "model.0", "float32": 0.004, "int8": 0.003}])

    assert row(render(result(slow)), "model.0") == ["4.0", "ms", "3.0", "ms"]
    assert "| model.0 | 4.0 ms | 3.0 ms |" in markdown(result(slow))


def test_the_kernels_are_listed_by_how_many_nodes_they_ran() -> None:
    text = " ".join(render(result(), width=300).split())

    assert (
        "int8 ran by: kernel 10: 10, kernel 9: 9, kernel 8: 8, kernel 7: 7, kernel 6: 6, kernel 5: 5, others: 10"
        in text
    )


@pytest.mark.parametrize(
    ("model", "step"),
    [
        (MODEL, "ship .qgate/artifacts/net.pt: `qgate.load_artifact` reads it"),
        (
            with_verdict("map", status="inconclusive", samples_needed=900),
            "evaluate on about 900 samples, which would settle map max_drop",
        ),
        (
            with_figures("map", with_verdict("map", status="failed"), ignored_scope=["a.*", "b"]),
            'keep layers float: ignored_scope = ["a.*", "b"] in [models.net.quantization]',
        ),
        (
            with_verdict("speedup", status="inconclusive"),
            "raise max_seconds in [models.net.timing], or run alone on a quiet machine",
        ),
        (with_verdict("speedup", status="failed"), "`qgate explain net` shows where int8's time goes, layer by layer"),
        (
            with_verdict("map", status="error", limit="max_regression", measured=None),
            "bless a run of this machine once its limits hold: `pytest --qgate --qgate-update-blessed`",
        ),
        (
            replace(with_verdict("map", status="error", measured=None), metrics={}),
            "mend what the first error says, and run the gate again",
        ),
    ],
    ids=["passed", "samples", "float", "seconds", "slow", "blessed", "error"],
)
def test_what_to_do_next(model: ModelResult, step: str) -> None:
    assert steps(model)[0] == step
    assert f"next: {step}" in markdown(result(model)).replace("\\", "")


def test_how_int8_differs_from_the_blessed_one() -> None:
    changed = with_figures("map", blessed=0.59, regression=0.01, regression_interval=[-0.005, 0.025])
    changed = with_figures("size_reduction", changed, blessed=0.70, regression=-0.05)
    changed = with_figures("speedup", changed, not_comparable="another CPU")

    text = " ".join(render(result(changed), width=300).split())
    cells = [line.split(" | ")[-2:] for line in markdown(result(changed)).splitlines() if line.endswith("passed |")]

    said = "size_reduction better by 5.0%, map worse by 0.0100 (-0.0050..0.0250), speedup not comparable"
    assert f"against blessed: {said}" in text
    assert sorted(cell for cell, _ in cells) == [
        *("-", "better by 5.0%", "not comparable", "worse by 0.0100 (-0.0050..0.0250)")
    ]
    assert "blessed" not in markdown(result())


def test_details_are_folded_in_markdown() -> None:
    text = markdown(result())

    assert text.count("<details>") == text.count("</details>") == 3
    outside = text.partition("<details>")[0]
    assert "map max" in outside
    assert "cat" not in outside
    assert "| map class cat | 0.8000 | 0.7000 | 0.1000 | 0.0500..0.1500 | 40 |" in text


def test_a_model_without_a_verdict_has_not_passed() -> None:
    unjudged = replace(MODEL, verdicts=())

    assert render(result(models={"net": MODEL, "other": unjudged})).startswith(
        "qgate: FAILED, nothing was judged of other\n"
    )


CRASHED = replace(
    MODEL,
    artifact=None,
    num_evaluation_samples=0,
    metrics={},
    seconds={"load": 0.1, "calibrate": 3.0},
    kernels={},
    verdicts=tuple(replace(one, measured=None, interval=None, status="error", message="boom") for one in HELD),
)


def test_a_run_that_crashed_half_way_says_what_is_missing() -> None:
    missing = "the int8 artifact, the evaluation, figures of size_reduction, map, iou, speedup"
    missing += "; the run came to: load, calibrate"

    assert f"missing: {missing}\n" in render(result(CRASHED), width=200)
    assert f"- missing: {missing}\n" in markdown(result(CRASHED)).replace("\\", "")
    assert "missing" not in render(result())
    assert "missing" not in markdown(result())


def every_format(one: Result, folder: Path) -> Iterator[str]:
    for width in (80, 200):
        yield render(one, width=width)
    yield markdown(one)
    yield one.to_json()
    yield from annotation_lines(one, "fail")
    path = folder / "quality.json"
    GitlabReporter().write(one, path)
    yield path.read_text(encoding="utf-8")
    yield str(run_properties(one))
    yield from (str(properties(verdict, model)) for model in one.models.values() for verdict in model.verdicts)


def test_every_text_format_shows_a_crashed_run(tmp_path: Path) -> None:
    for model in (CRASHED, replace(CRASHED, verdicts=(), quantization={}, seconds={})):
        assert all("None" not in text for text in every_format(result(model), tmp_path))


def test_every_text_format_bears_figures_that_do_not_exist(tmp_path: Path) -> None:
    """Whatever a step left undone: numbers that are null, and figures that are not there."""
    whole = json.loads(result().to_json())
    rng = random.Random(0)  # noqa: S311  # not for secrets
    for _ in range(50):
        document = copy.deepcopy(whole)
        model = document["models"]["net"]
        for figures in model["metrics"].values():
            forget(figures, rng)
        for verdict in model["verdicts"]:
            verdict.update({key: None for key in ("measured", "interval") if rng.random() < 0.3})
        for name in [name for name in model["metrics"] if rng.random() < 0.2]:
            del model["metrics"][name]
        assert all(every_format(result_from_document(document, "results.json"), tmp_path))


def forget(figures: dict[str, Any], rng: random.Random) -> None:
    """Remove some figures, and make others null, at any depth."""
    for key in list(figures):
        if isinstance(figures[key], dict) and rng.random() < 0.8:
            forget(figures[key], rng)
        elif rng.random() < 0.2:
            del figures[key]
        elif rng.random() < 0.2 and not isinstance(figures[key], dict):
            figures[key] = None
