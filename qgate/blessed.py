"""Blessed results: what int8 was accepted with, in a committed file, so that ten small drops cannot pass one by one.

The file keeps each metric's value in every bootstrap resample beside the value itself. A later run draws the same
resamples of the same data, so the two int8 models are compared as a pair, although only one of them is at hand.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from qgate.errors import ResultsError
from qgate.outputs import blessed_output
from qgate.resampled import decode
from qgate.results import read_interval, table_name
from qgate.statistics import RESAMPLES

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from qgate.results import Interval, Result

__all__ = ["HOW_TO_BLESS", "Blessed", "Change", "Entry", "conditions_of", "load_blessed", "measured_entries"]

SCHEMA_VERSION = 1
HOW_TO_BLESS = "`pytest --qgate --qgate-update-blessed`"

Figures = dict[str, Any]

_UNSAID = object()  # equal to no value, not even to null

# What must be the same for two values to be comparable.
_OF_ACCURACY = ("data_sha256", "evaluator", "isa", "seed")
_OF_SPEED = ("isa", "cpu", "num_threads", "baseline_form")
_IN_WORDS = {
    "data_sha256": "other evaluation data",
    "evaluator": "other settings of the evaluator",
    "isa": "another instruction set",
    "seed": "another seed",
    "cpu": "another CPU",
    "num_threads": "another number of threads",
    "baseline_form": "another baseline form",
}


@dataclass(frozen=True)
class Entry:
    """One blessed value of int8, the conditions that it holds under, and the run that it comes from.

    `resampled` are its values in each resample, as `qgate.resampled` writes them, where the metric has them, and
    `interval` is that of a speedup. Entries are equal where the same was measured alike, whenever that was.
    """

    value: float
    conditions: dict[str, Any]
    resampled: str | None = None
    interval: Interval | None = None
    created: str | None = field(default=None, compare=False)
    git_commit: str | None = field(default=None, compare=False)

    def differences(self, conditions: Mapping[str, Any]) -> str:
        """Say in which respects the entry was measured otherwise; "" where it is comparable."""
        keys = dict.fromkeys((*self.conditions, *conditions))
        differing = [key for key in keys if self.conditions.get(key, _UNSAID) != conditions.get(key, _UNSAID)]
        return " and ".join(_IN_WORDS.get(key, key) for key in differing)

    def why_not_comparable(self, conditions: Mapping[str, Any]) -> str:
        """Say why a value measured under `conditions` cannot be held to the entry; "" where it can."""
        named = self.differences(conditions)
        if not named:
            return ""
        return f"not comparable: the blessed value is of {named}; measure it here and bless that: {HOW_TO_BLESS}"


@dataclass(frozen=True)
class Change:
    """What blessing changes of one value: None is no value."""

    model: str
    metric: str
    before: float | None
    after: float


@dataclass(frozen=True)
class Blessed:
    """The blessed file's content: model to metric (or slice) to entry."""

    models: dict[str, dict[str, Entry]] = field(default_factory=dict)

    def updated(self, result: Result) -> Blessed:
        """Give a copy with what `result` measured; what it did not measure, or found as it was, stays."""
        models = {name: dict(entries) for name, entries in self.models.items()}
        commit = result.environment.get("git_commit")
        for name, model in result.models.items():
            entries = models.setdefault(name, {})
            for metric, entry in measured_entries(model.metrics, model.conditions):
                if entries.get(metric) != entry:
                    entries[metric] = replace(entry, created=result.created, git_commit=commit)
        return Blessed(models)

    def changes_to(self, other: Blessed) -> list[Change]:
        """List the values of `other` that are not the same here."""
        return [
            Change(model, metric, before.value if before else None, entry.value)
            for model, entries in other.models.items()
            for metric, entry in entries.items()
            if (before := self.models.get(model, {}).get(metric)) != entry
        ]

    def save(self, path: Path) -> None:
        """Write the file atomically. Raises `ResultsError`."""
        models = {
            name: {metric: _document(entry) for metric, entry in sorted(entries.items())}
            for name, entries in sorted(self.models.items())
        }
        text = json.dumps({"schema_version": SCHEMA_VERSION, "models": models}, indent=1, allow_nan=False) + "\n"
        blessed_output(path).write(text.encode())


def load_blessed(path: Path) -> Blessed:
    """Read the blessed file; empty where there is none. Raises `ResultsError` where it is damaged."""
    try:
        return _from_document(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return Blessed()
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ResultsError(
            f"is no file of blessed results ({type(error).__name__}: {error}); take it back from version control, or "
            f"remove it and write it anew: {HOW_TO_BLESS}",
            path=path,
        ) from None


def measured_entries(metrics: Mapping[str, Figures], conditions: Mapping[str, Any]) -> Iterator[tuple[str, Entry]]:
    """Give what a run has to bless of a model: int8's finite values, by the name of metric or slice."""
    for metric, figures in metrics.items():
        slices = ((table_name(metric, found["where"]), found) for found in figures.get("limited_slices", ()))
        for name, found in ((metric, figures), *slices):
            value = found.get("value", found.get("candidate"))
            if value is not None and math.isfinite(value):
                depends_on = conditions_of(found, conditions)
                yield name, Entry(value, depends_on, found.get("resampled"), read_interval(found.get("interval")))


def conditions_of(figures: Figures, conditions: Mapping[str, Any]) -> dict[str, Any]:
    """Choose the conditions that a metric's value depends on."""
    known = {**conditions, **figures}
    keys = _OF_ACCURACY if "drop" in figures else _OF_SPEED if "forms" in figures else ()
    return {key: known.get(key) for key in keys}


def _document(entry: Entry) -> dict[str, Any]:
    return {key: value for key, value in vars(entry).items() if value is not None}


def _from_document(document: Any) -> Blessed:
    if document["schema_version"] != SCHEMA_VERSION:
        raise ValueError(f"schema_version is {document['schema_version']!r}, this qgate reads {SCHEMA_VERSION}")
    models = document["models"].items()
    return Blessed({name: {metric: _entry(entry) for metric, entry in entries.items()} for name, entries in models})


def _entry(document: dict[str, Any]) -> Entry:
    entry = Entry(**{**document, "interval": read_interval(document.get("interval"))})
    if isinstance(entry.value, bool) or not isinstance(entry.value, int | float) or not math.isfinite(entry.value):
        raise ValueError(f"a blessed value is {entry.value!r}")
    if not isinstance(entry.conditions, dict):
        raise TypeError(f"the conditions of a blessed value are {entry.conditions!r}")
    if entry.resampled is not None and len(decode(entry.resampled)) != RESAMPLES:
        raise ValueError(f"a metric has other than {RESAMPLES} resamples")
    return entry
