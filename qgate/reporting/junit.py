"""A run's figures as flat properties: what a JUnit file can hold."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from qgate.reporting.rows import figures_of
from qgate.reporting.text import printable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from qgate.results import ModelResult, Result, Verdict

_NO_FIGURES = ("slices", "limited_slices", "resampled", "where")


def properties(verdict: Verdict, model: ModelResult) -> list[tuple[str, object]]:
    """Give what a test case says, as far as it exists: of the verdict, then of its metric or slice.

    A figure below another has its name behind a dot: `qgate.forms.int8`.
    """
    judged = {
        "status": verdict.status,
        "slice": verdict.slice,
        "measured": verdict.measured,
        "limit": verdict.limit_value,
        "interval": verdict.interval,
        "samples_needed": verdict.samples_needed,
        "num_evaluation_samples": model.num_evaluation_samples,
    }
    return list(_flat({**figures_of(verdict, model), **judged}, "qgate"))


def run_properties(result: Result) -> list[tuple[str, object]]:
    """Give what holds for all test cases: where and how each model was quantized, and what was not judged."""
    models = {
        name: {
            "quantization": model.quantization,
            "artifact": asdict(model.artifact) if model.artifact else None,
            "num_evaluation_samples": model.num_evaluation_samples,
            "calibration_overlap": model.calibration_overlap,
            "seconds": model.seconds,
        }
        for name, model in result.models.items()
    }
    run = {
        "version": result.qgate_version,
        "config_path": result.config_path,
        "config_sha256": result.config_sha256,
        "not_judged": "; ".join(result.not_judged) or None,
        "environment": result.environment,
    }
    return list(_flat({**run, "models": models}, "qgate"))


def _flat(figures: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, object]]:
    """Give numbers and strings as they are, other values as JSON; numbers keep every digit.

    A name may be a model's or a slice's: pytest makes values fit for XML, but not names.
    """
    for key, value in figures.items():
        name = f"{prefix}.{printable(key)}"
        if key in _NO_FIGURES or value is None:
            continue
        if isinstance(value, dict):
            yield from _flat(value, name)
        else:
            is_plain = isinstance(value, str | int | float) and not isinstance(value, bool)
            yield name, value if is_plain else json.dumps(value)
