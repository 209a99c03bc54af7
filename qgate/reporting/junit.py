"""A limit's figures as flat properties: what a JUnit file can hold."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qgate.reporting.rows import figures_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from qgate.results import ModelResult, Verdict

_NO_FIGURES = ("slices", "limited_slices", "resampled", "where")


def properties(verdict: Verdict, model: ModelResult) -> list[tuple[str, object]]:
    """Give names and values, all that exist: of the verdict, then of its metric or slice.

    A figure below another has its name behind a dot: `forms.int8`.
    """
    judged = {
        "status": verdict.status,
        "measured": verdict.measured,
        "limit": verdict.limit_value,
        "interval": list(verdict.interval) if verdict.interval else None,
        "samples_needed": verdict.samples_needed,
        "num_evaluation_samples": model.num_evaluation_samples,
    }
    measured = {name: value for name, value in _flat(figures_of(verdict, model), "") if name not in judged}
    return [(name, value) for name, value in {**judged, **measured}.items() if value is not None]


def _flat(figures: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, object]]:
    for name, value in figures.items():
        if name in _NO_FIGURES:
            continue
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", list(value) if isinstance(value, tuple) else value
