"""The file of blessed results: what it keeps, what changes in it, and what becomes of a damaged one."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from qgate.blessed import Blessed, Change, Entry, load_blessed
from qgate.engine.gate import Gate
from qgate.errors import ConfigError, ResultsError
from qgate.resampled import decode, encode
from qgate.results import ModelResult, Result

if TYPE_CHECKING:
    from pathlib import Path

CONDITIONS = {
    "data_sha256": "d" * 64,
    "evaluator": {"loader": "net", "image_size": 64},
    "isa": ["avx2"],
    "seed": 0,
    "cpu": "this",
    "num_threads": 1,
}
RESAMPLED = encode(np.linspace(0, 1, 1000))


def accuracy(value: float | None, **more: Any) -> dict[str, Any]:
    return {"baseline": 0.5, "candidate": value, "drop": 0.1, "resampled": RESAMPLED, **more}


def result(created: str = "monday", commit: str = "abc", **models: dict[str, Any]) -> Result:
    """Give the result of a run that measured these metrics of these models."""
    found = {
        name: ModelResult({}, None, 12, metrics, (), {}, conditions=CONDITIONS) for name, metrics in models.items()
    }
    return Result("0.1.0", created, "0" * 64, {"git_commit": commit}, found)


SPEED = {"value": 1.5, "interval": [1.4, 1.6], "forms": {"int8": 0.01}, "baseline_form": "frozen"}
EVERYTHING = {
    "map": accuracy(0.4, limited_slices=[{"where": {"class": "cat"}, **accuracy(0.3)}]),
    "size_reduction": {"baseline": 100, "candidate": 25, "value": 0.75},
    "speedup": SPEED,
}


def test_what_a_run_measured_is_what_the_file_gives_back(tmp_path: Path) -> None:
    path = tmp_path / "new" / "blessed.json"
    blessed = Blessed().updated(result(net=EVERYTHING))

    blessed.save(path)

    assert load_blessed(path) == blessed
    entries = load_blessed(path).models["net"]
    assert {name: entry.value for name, entry in entries.items()} == {
        "map": 0.4,
        "map[class=cat]": 0.3,
        "size_reduction": 0.75,
        "speedup": 1.5,
    }
    assert entries["map"].conditions == {key: CONDITIONS[key] for key in ("data_sha256", "evaluator", "isa", "seed")}
    assert entries["size_reduction"].conditions == {}
    assert entries["speedup"].conditions["baseline_form"] == "frozen"
    assert entries["speedup"].interval == (1.4, 1.6)
    assert (entries["map"].created, entries["map"].git_commit) == ("monday", "abc")
    assert decode(entries["map"].resampled or "") == pytest.approx(np.linspace(0, 1, 1000), abs=1e-7)


def test_only_what_was_measured_is_written() -> None:
    before = Blessed().updated(result(net={"map": accuracy(0.4), "iou": accuracy(0.6)}, other={"map": accuracy(0.2)}))

    after = before.updated(result("friday", net={"map": accuracy(0.41)}, third={"map": accuracy(0.7)}))

    values = {model: {name: entry.value for name, entry in found.items()} for model, found in after.models.items()}
    assert values == {"net": {"map": 0.41, "iou": 0.6}, "other": {"map": 0.2}, "third": {"map": 0.7}}
    assert after.models["net"]["map"].created == "friday"
    assert after.models["net"]["iou"].created == "monday"
    assert before.models["net"]["map"].value == 0.4  # a copy


@pytest.mark.parametrize("value", [None, float("nan"), float("inf")])
def test_what_has_no_value_leaves_the_old_one(value: float | None) -> None:
    before = Blessed().updated(result(net={"map": accuracy(0.4)}))

    assert before.updated(result(net={"map": accuracy(value)})).models["net"]["map"].value == 0.4


def test_changes_are_before_and_after() -> None:
    before = Blessed().updated(result(net={"map": accuracy(0.4), "iou": accuracy(0.6)}))
    after = before.updated(result("friday", net={"map": accuracy(0.41), "iou": accuracy(0.6), "map50": accuracy(0.7)}))

    assert before.changes_to(after) == [Change("net", "map", 0.4, 0.41), Change("net", "map50", None, 0.7)]


def test_the_same_measured_again_changes_not_a_byte(tmp_path: Path) -> None:
    path = tmp_path / "blessed.json"
    Blessed().updated(result(net=EVERYTHING)).save(path)
    old, before = path.read_bytes(), load_blessed(path)

    again = before.updated(result("friday", "def", net=EVERYTHING))
    again.save(path)

    assert before.changes_to(again) == []
    assert path.read_bytes() == old


def test_the_same_value_under_other_conditions_is_a_change() -> None:
    before = Blessed().updated(result(net={"map": accuracy(0.4)}))
    other = result(net={"map": accuracy(0.4)})
    other.models["net"] = replace(other.models["net"], conditions={**CONDITIONS, "isa": ["avx512_vnni"]})

    after = before.updated(other)

    assert before.changes_to(after) == [Change("net", "map", 0.4, 0.4)]
    assert after.models["net"]["map"].conditions["isa"] == ["avx512_vnni"]


def test_the_file_is_the_same_whatever_ran_first(tmp_path: Path) -> None:
    one, other = result(net=EVERYTHING), result(alpha={"map": accuracy(0.1)})
    Blessed().updated(one).updated(other).save(tmp_path / "a.json")
    Blessed().updated(other).updated(one).save(tmp_path / "b.json")

    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
    assert (tmp_path / "a.json").read_bytes().endswith(b"}\n")


def test_no_file_is_no_blessed_results(tmp_path: Path) -> None:
    assert load_blessed(tmp_path / "blessed.json") == Blessed()


def sound(**changes: Any) -> Any:
    """Give a sound document, whose one entry has changes."""
    entry = {"value": 0.4, "conditions": {"seed": 0}, "resampled": RESAMPLED, **changes}
    return {"schema_version": 1, "models": {"net": {"map": entry}}}


def test_the_document_that_is_damaged_below_is_sound(tmp_path: Path) -> None:
    path = tmp_path / "blessed.json"
    path.write_text(json.dumps(sound()))

    assert load_blessed(path).models["net"]["map"] == Entry(0.4, {"seed": 0}, RESAMPLED)


WHOLE = json.dumps(sound()).encode()
DAMAGED = {
    "empty": b"",
    "truncated": WHOLE[: len(WHOLE) // 2],
    "not UTF-8": WHOLE.replace(b"net", b"n\xe9t"),
    "UTF-16": WHOLE.decode().encode("utf-16"),
    "merge conflict": b"<<<<<<< ours\n" + WHOLE + b"\n=======\n" + WHOLE,
    "nested too deep": b"[" * 100_000,
    "list": b"[]",
    "null": b"null",
    "number": b"3",
    "no schema": b'{"models": {}}',
    "other schema": b'{"schema_version": 2, "models": {}}',
    "schema as text": b'{"schema_version": "1", "models": {}}',
    "no models": b'{"schema_version": 1}',
    "models as list": b'{"schema_version": 1, "models": []}',
    "model as number": b'{"schema_version": 1, "models": {"net": 3}}',
    "entry as number": b'{"schema_version": 1, "models": {"net": {"map": 0.4}}}',
    "entry as null": b'{"schema_version": 1, "models": {"net": {"map": null}}}',
    **{
        name: json.dumps(sound(**changes)).encode()
        for name, changes in {
            "value as text": {"value": "0.4"},
            "value as true": {"value": True},
            "value null": {"value": None},
            "value NaN": {"value": float("nan")},
            "value infinite": {"value": float("inf")},
            "conditions as text": {"conditions": "none"},
            "conditions null": {"conditions": None},
            "conditions as list": {"conditions": ["seed"]},
            "unknown field": {"values": 3},
            "resamples as number": {"resampled": 3},
            "resamples not base64": {"resampled": "~~~~"},
            "resamples not ASCII": {"resampled": "é"},
            "resamples cut": {"resampled": RESAMPLED[:400]},
            "resamples cut within a number": {"resampled": "AAAA"},
            "too few resamples": {"resampled": encode(np.zeros(999))},
            "interval as number": {"interval": 3},
            "interval of one": {"interval": [1.0]},
            "interval of text": {"interval": ["low", "high"]},
            "interval as text": {"interval": "1,2"},
        }.items()
    },
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_a_damaged_file_is_one_line_that_names_it(damage: str, tmp_path: Path) -> None:
    path = tmp_path / "blessed.json"
    path.write_bytes(DAMAGED[damage])

    with pytest.raises(ResultsError) as caught:
        load_blessed(path)

    assert str(caught.value).startswith(f"{path}: is no file of blessed results (")
    assert "take it back from version control" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(ResultsError, match="is no file of blessed results"):
        load_blessed(tmp_path)


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "blessed.json"
    Blessed().updated(result(net=EVERYTHING)).save(path)
    old = path.read_bytes()

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ResultsError, match=r"blessed\.json: the blessed results cannot be written: .*No space left"):
        Blessed().updated(result(other=EVERYTHING)).save(path)
    assert path.read_bytes() == old
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("ci", ["true", "1", "yes"])
def test_a_machine_does_not_bless(ci: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", ci)

    with pytest.raises(ConfigError, match="never updated where CI is set: a person blesses, and commits"):
        Gate.open(tmp_path / "qgate.toml", update_blessed=True)


@pytest.mark.parametrize("ci", ["", "false"])
def test_a_person_does(ci: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", ci)

    with pytest.raises(ConfigError, match="there is no such file"):
        Gate.open(tmp_path / "qgate.toml", update_blessed=True)
