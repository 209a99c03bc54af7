"""The runs so far: a short form of each result, one file a run, in a folder beside `results.json`."""

from __future__ import annotations

import contextlib
import hashlib
import re
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from qgate.errors import ResultsError
from qgate.files import STALE_SECONDS
from qgate.outputs import history_output
from qgate.results import Result, load_results

if TYPE_CHECKING:
    from pathlib import Path

    from qgate.results import ModelResult, Verdict

__all__ = ["KEPT", "History", "history_folder", "load_history", "record"]

KEPT = 100  # runs of one `qgate.toml`; each takes a few kB

_MESSAGE = 200  # characters
_KEPT_FIGURES = (
    *("baseline", "candidate", "value", "drop", "relative_drop", "interval", "drop_interval", "relative_drop_interval"),
    *("higher_is_better", "unit", "samples", "baseline_form", "forms", "where", "support"),
    *("blessed", "regression", "regression_interval", "not_comparable"),
)


@dataclass(frozen=True)
class History:
    """The runs of one `qgate.toml`, the oldest first, and how many files could not be read."""

    runs: tuple[Result, ...]
    unreadable: int = 0


def history_folder(results: Path) -> Path:
    """Give the folder of the history that goes with a `results.json`."""
    return results.parent / "history"


def record(results: Path, result: Result) -> None:
    """Add a run, atomically, and remove the oldest beyond `KEPT`. Raises `ResultsError` where it cannot be written.

    Concurrent runs each write a file of their own, and may remove the same old ones.
    """
    folder = history_folder(results)
    content = _short(result).to_json().encode()
    history_output(folder / _name(result, content)).write(content)
    for path in _paths(folder, result.config_path)[:-KEPT]:
        path.unlink(missing_ok=True)
    _remove_stale(folder)


def load_history(results: Path, config_path: str) -> History:
    """Read the runs of the `qgate.toml` of this path. A file that is damaged is counted; one that goes away is not."""
    found = [_read(path) for path in _paths(history_folder(results), config_path)]
    runs = [run for run in found if isinstance(run, Result)]
    return History(tuple(sorted(runs, key=lambda run: run.created)), found.count("unreadable"))


def _read(path: Path) -> Result | Literal["unreadable", "gone"]:
    try:
        return load_results(path)
    except ResultsError:
        return "unreadable" if path.exists() else "gone"


def _paths(folder: Path, config_path: str | None) -> list[Path]:
    return sorted(folder.glob(f"{_key(config_path)}-*.json"))


def _name(result: Result, content: bytes) -> str:
    """Name a run's file: names sort by time, and no two runs share one."""
    moment = re.sub(r"[^0-9A-Za-z]", "", result.created)
    return f"{_key(result.config_path)}-{moment}-{hashlib.sha256(content).hexdigest()[:12]}.json"


def _key(config_path: str | None) -> str:
    """Name a `qgate.toml` in a file's name: several may share a folder."""
    return hashlib.sha256((config_path or "").encode(errors="surrogatepass")).hexdigest()[:12]


def _short(result: Result) -> Result:
    """Leave out what is large: slices without a limit, resamples, kernels, long messages."""
    return replace(result, models={name: _short_model(model) for name, model in result.models.items()})


def _short_model(model: ModelResult) -> ModelResult:
    metrics = {name: _short_figures(figures) for name, figures in model.metrics.items()}
    verdicts = tuple(_short_verdict(verdict) for verdict in model.verdicts)
    return replace(model, metrics=metrics, verdicts=verdicts, notes=(), kernels={}, cached={}, details=None)


def _short_figures(figures: dict[str, Any]) -> dict[str, Any]:
    kept = {key: value for key, value in figures.items() if key in _KEPT_FIGURES}
    limited = [_short_figures(item) for item in figures.get("limited_slices", ())]
    return {**kept, "limited_slices": limited} if limited else kept


def _short_verdict(verdict: Verdict) -> Verdict:
    return replace(verdict, message=verdict.message[:_MESSAGE])


def _remove_stale(folder: Path) -> None:
    """Remove what killed runs have left half written."""
    with contextlib.suppress(OSError):  # a concurrent run removes them too
        for temporary in folder.glob(".*.json.*.tmp"):
            if time.time() - temporary.lstat().st_mtime > STALE_SECONDS:
                temporary.unlink()
