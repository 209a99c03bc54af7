from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import pytest

from qgate.errors import ResultsError
from qgate.results import Artifact, ModelResult, Result, Status, Verdict, load_results

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

NAN, INF = float("nan"), float("inf")


def verdict(status: Status = "passed", **changes: Any) -> Verdict:
    return Verdict(
        **{"metric": "map", "limit": "max_drop", "limit_value": 0.01, "measured": 0.005} | changes, status=status
    )


def model(*verdicts: Verdict, **changes: Any) -> ModelResult:
    values: dict[str, Any] = {
        "quantization": {"backend": "fbgemm", "ignored_scope": ["model.24.*"], "reduce_range": True},
        "artifact": Artifact(".qgate/artifacts/net.pt", 1234, "a" * 64),
        "num_evaluation_samples": 128,
        "metrics": {"map": {"baseline": 0.34, "candidate": 0.33, "drop": 0.01}, "speedup": {"forms": {"int8": 0.02}}},
        "seconds": {"load": 0.5, "total": 3.25},
        "notes": ("a note",),
    }
    return ModelResult(**values | changes, verdicts=verdicts or (verdict(),))


def result(**models: ModelResult) -> Result:
    environment = {"torch": "2.13.0", "isa": ["avx2"], "git_commit": None}
    return Result("0.1.0", "2026-01-01T00:00:00+00:00", "b" * 64, environment, models or {"net": model()})


def strict_json(text: str) -> Any:
    """Parse JSON that has none of Python's additions to it."""

    def refuse(constant: str) -> Any:
        raise AssertionError(f"{constant} is not JSON")

    return json.loads(text, parse_constant=refuse)


def test_what_is_saved_is_what_is_loaded(tmp_path: Path) -> None:
    path = tmp_path / "new" / "results.json"
    saved = result(
        net=model(
            verdict("inconclusive", interval=(0.001, 0.009), slice={"class": "person"}, samples_needed=500),
            verdict("error", measured=None),
            conditions={"seed": 0, "evaluator": {"size": [1, 2]}},
            calibration_overlap=3,
        ),
        other=model(artifact=None, notes=()),
    )

    saved.save(path)

    assert load_results(path) == saved
    assert strict_json(path.read_text())["models"]["net"]["verdicts"][0]["interval"] == [0.001, 0.009]


@pytest.mark.parametrize("bad", [NAN, INF, -INF])
def test_a_number_that_does_not_exist_is_null(bad: float, tmp_path: Path) -> None:
    saved = result(net=model(verdict(measured=bad), metrics={"map": {"drop": bad, "slices": {"a": [1.0, bad]}}}))

    document = strict_json(saved.to_json())["models"]["net"]

    assert document["verdicts"][0]["measured"] is None
    assert document["metrics"]["map"] == {"drop": None, "slices": {"a": [1.0, None]}}


def test_an_interval_that_does_not_exist_is_none(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    result(net=model(verdict(interval=(NAN, 0.1)))).save(path)

    assert load_results(path).models["net"].verdicts[0].interval is None


def test_what_an_older_qgate_did_not_write_is_left_out(tmp_path: Path) -> None:
    document = json.loads(result().to_json())
    for field in ("conditions", "calibration_overlap", "notes"):
        del document["models"]["net"][field]
    del document["models"]["net"]["verdicts"][0]["samples_needed"]
    path = tmp_path / "results.json"
    path.write_text(json.dumps(document))

    loaded = load_results(path).models["net"]

    assert (loaded.conditions, loaded.calibration_overlap, loaded.notes) == ({}, None, ())
    assert loaded.verdicts[0].samples_needed is None


@pytest.mark.parametrize("version", [0, 2, "1", None])
def test_another_schema_version_says_so(version: Any, tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    path.write_text(json.dumps(json.loads(result().to_json()) | {"schema_version": version}))

    with pytest.raises(ResultsError) as caught:
        load_results(path)
    assert str(caught.value) == (
        f"{path}: has schema_version {json.dumps(version)}, this qgate reads 1; run the gate again"
    )


def test_no_results_yet_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(
        ResultsError, match=r"results\.json: no results yet; run `qgate check` or `pytest --qgate` first"
    ):
        load_results(tmp_path / "results.json")


DAMAGES: dict[str, Callable[[Any], Any]] = {
    "no models": lambda document: document.pop("models"),
    "no verdicts": lambda document: document["models"]["net"].pop("verdicts"),
    "unknown field": lambda document: document.update(colour="red"),
    "unknown status": lambda document: document["models"]["net"]["verdicts"][0].update(status="fine"),
    "text for a number": lambda document: document["models"]["net"]["verdicts"][0].update(measured="0.1"),
    "text for a figure": lambda document: document["models"]["net"]["metrics"]["map"].update(baseline="0.1"),
    "text for an interval": lambda document: document["models"]["net"]["verdicts"][0].update(interval="wide"),
    "text in an interval": lambda document: document["models"]["net"]["verdicts"][0].update(interval=["0.1", "0.2"]),
    "half an interval": lambda document: document["models"]["net"]["verdicts"][0].update(interval=[0.1]),
    "number for an interval": lambda document: document["models"]["net"]["verdicts"][0].update(interval=0.1),
    "text for a time": lambda document: document["models"]["net"]["seconds"].update(total="long"),
    "list of models": lambda document: document.update(models=[]),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_document_is_one_line_that_names_the_file(damage: str, tmp_path: Path) -> None:
    document = json.loads(result().to_json())
    DAMAGES[damage](document)
    path = tmp_path / "results.json"
    path.write_text(json.dumps(document))

    with pytest.raises(ResultsError, match=r"results\.json: is not a qgate result .*run the gate again") as caught:
        load_results(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[]", b"null", b"[" * 100_000])
def test_what_is_no_document_is_an_error(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    path.write_bytes(content)

    with pytest.raises(ResultsError, match=r"results\.json: "):
        load_results(path)


def test_a_failed_write_leaves_the_old_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "results.json"
    result().save(path)
    old = path.read_text()

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ResultsError, match=r"results\.json: the results cannot be written: .*No space left"):
        result(net=model(verdict("failed"))).save(path)
    assert path.read_text() == old


def test_nothing_judged_has_not_passed() -> None:
    nothing = ModelResult({}, None, 0, {}, (), {})

    assert not nothing.passed
    assert not Result("0", "", "", {}).passed
    assert not Result("0", "", "", {}).accepted("warn")
    assert not result(net=model(), empty=nothing).passed
    assert not result(net=model(), empty=nothing).accepted("warn")


@pytest.mark.parametrize(
    ("status", "fail", "warn"),
    [("passed", True, True), ("inconclusive", False, True), ("failed", False, False), ("error", False, False)],
)
def test_only_inconclusive_depends_on_what_the_user_accepts(status: Status, fail: bool, warn: bool) -> None:
    judged = result(net=model(verdict(), verdict(status)))

    assert (judged.accepted("fail"), judged.accepted("warn")) == (fail, warn)
    assert judged.passed is (status == "passed")


def test_a_model_is_added_or_replaced_in_a_copy() -> None:
    first = result(net=model())

    second = first.with_model("other", model()).with_model("net", model(verdict("failed")))

    assert (list(first.models), list(second.models)) == (["net"], ["net", "other"])
    assert first.passed
    assert not second.passed
