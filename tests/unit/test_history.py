from __future__ import annotations

import json
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from qgate import history
from qgate.errors import ResultsError
from qgate.files import STALE_SECONDS
from qgate.history import history_folder, load_history, record
from qgate.results import ModelResult, Result, Verdict

if TYPE_CHECKING:
    from pathlib import Path

FIGURES: dict[str, Any] = {"baseline": 0.34, "candidate": 0.33, "drop": 0.01, "drop_interval": [0.0, 0.02]}
LARGE: dict[str, Any] = {
    **FIGURES,
    "resampled": "A" * 5336,
    "slices": {"class": {f"class {index}": FIGURES for index in range(1000)}},
    "limited_slices": [{**FIGURES, "where": {"class": "person"}, "support": 30, "resampled": "A" * 5336}],
}


def run(number: int = 0, config: str | None = "qgate.toml") -> Result:
    verdict = Verdict("map", "max_drop", 0.02, 0.01, "passed", "m" * 10_000)
    model = ModelResult(
        {"backend": "fbgemm"}, None, 128, {"map": LARGE}, (verdict,), {"total": 1.0}, conditions={"seed": number}
    )
    created = f"2026-01-01T00:{number // 60:02}:{number % 60:02}+00:00"
    return Result("0", created, "", {"git_commit": "c" * 40}, {"net": model}, config_path=config)


def created_of(results: Path, config: str = "qgate.toml") -> list[str]:
    return [kept.created for kept in load_history(results, config).runs]


def test_a_run_is_kept_with_its_figures_and_without_what_is_large(tmp_path: Path) -> None:
    record(tmp_path / "results.json", run())

    (path,) = history_folder(tmp_path / "results.json").iterdir()
    (kept,) = load_history(tmp_path / "results.json", "qgate.toml").runs
    assert path.stat().st_size < 4096
    assert kept.models["net"].metrics["map"] == {
        **FIGURES,
        "limited_slices": [{**FIGURES, "where": {"class": "person"}, "support": 30}],
    }
    assert kept.models["net"].conditions == {"seed": 0}
    assert kept.environment == {"git_commit": "c" * 40}
    assert [(verdict.name, verdict.status) for verdict in kept.models["net"].verdicts] == [("map max_drop", "passed")]


def test_runs_come_in_the_order_of_their_time_and_only_of_the_configuration_that_is_asked_for(tmp_path: Path) -> None:
    results = tmp_path / "results.json"
    for number in (3, 1, 2):
        record(results, run(number))
        record(results, run(number + 10, "other.toml"))

    assert created_of(results) == [run(number).created for number in (1, 2, 3)]
    assert created_of(results, "other.toml") == [run(number).created for number in (11, 12, 13)]


def test_the_oldest_runs_make_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "KEPT", 5)
    results = tmp_path / "results.json"
    record(results, run(0, "other.toml"))
    for number in range(8):
        record(results, run(number))

    assert created_of(results) == [run(number).created for number in range(3, 8)]
    assert created_of(results, "other.toml") == [run(0).created]


def test_concurrent_runs_lose_nothing_but_the_oldest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "KEPT", 20)
    results = tmp_path / "results.json"
    with ThreadPoolExecutor(8) as pool:
        read = [
            pool.submit(load_history, results, "qgate.toml")
            if number % 4 == 0
            else pool.submit(record, results, run(number))
            for number in range(60)
        ]
        found = [future.result() for future in read]

    assert all(kept.unreadable == 0 for kept in found if kept is not None)
    written = [run(number).created for number in range(60) if number % 4]
    assert set(created_of(results)) <= set(written)
    assert len(created_of(results)) == 20


def test_runs_of_one_second_are_two(tmp_path: Path) -> None:
    results = tmp_path / "results.json"
    record(results, run())
    record(results, replace(run(), config_sha256="other"))

    assert len(created_of(results)) == 2


def test_a_damaged_file_is_counted_and_the_others_are_read(tmp_path: Path) -> None:
    results = tmp_path / "results.json"
    for number in range(3):
        record(results, run(number))
    first, second, _ = sorted(history_folder(results).iterdir())
    first.write_text("{", encoding="utf-8")
    second.write_text(json.dumps({"schema_version": 1, "models": 3}), encoding="utf-8")

    found = load_history(results, "qgate.toml")

    assert ([kept.created for kept in found.runs], found.unreadable) == ([run(2).created], 2)


def test_what_a_killed_run_left_is_removed_an_hour_later(tmp_path: Path) -> None:
    results = tmp_path / "results.json"
    record(results, run(0))
    old, new = (history_folder(results) / f".a-{name}.json.x.tmp" for name in ("old", "new"))
    for path in (old, new):
        path.write_text("{", encoding="utf-8")
    hour_ago = new.stat().st_mtime - STALE_SECONDS - 60
    os.utime(old, (hour_ago, hour_ago))

    record(results, run(1))

    assert (old.exists(), new.exists()) == (False, True)


def test_without_runs_there_are_none(tmp_path: Path) -> None:
    assert load_history(tmp_path / "results.json", "qgate.toml").runs == ()


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    history_folder(tmp_path / "results.json").write_text("", encoding="utf-8")

    with pytest.raises(ResultsError, match=r"the history cannot be written: .*; name a file that can be written as"):
        record(tmp_path / "results.json", run())
