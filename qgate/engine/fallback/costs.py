"""How much limits on speed and size leave for float layers."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

from qgate.engine.artifact import float_bytes, load_artifact
from qgate.engine.timing import CANDIDATE, Goal, measure
from qgate.quantization.float_forms import float_forms

if TYPE_CHECKING:
    from pathlib import Path

    from qgate.config.model import ModelConfig
    from qgate.engine.progress import Progress
    from qgate.plugins import Registry
    from qgate.protocols import LoadedModel

__all__ = ["spare_bytes", "spare_seconds"]

_MAX_SECONDS = 10.0  # the gate times the model itself once more, as long as its limit demands


def spare_bytes(model: ModelConfig, loaded: LoadedModel, artifact: Path) -> float:
    """Give by how many bytes an artifact may grow, inf where there is no limit on its size."""
    floor = _floor(model, "size_reduction")
    return math.inf if floor is None else (1 - floor) * float_bytes(loaded.module) - artifact.stat().st_size


def spare_seconds(
    model: ModelConfig, loaded: LoadedModel, artifact: Path, registry: Registry, progress: Progress
) -> float:
    """Measure by how many seconds int8 may be slower, inf where there is no limit on speed."""
    floor = _floor(model, "speedup")
    if not floor:
        return math.inf
    floats = float_forms(loaded.module, loaded.example_inputs, model.quantization.non_traceable)
    forms = {**floats, CANDIDATE: load_artifact(artifact, registry=registry)}
    timing = replace(model.timing, max_seconds=min(_MAX_SECONDS, model.timing.max_seconds))
    found = measure(forms, loaded.example_inputs, timing, Goal([floor]), progress).figures
    baseline, int8 = found["baseline"], found["candidate"]
    assert isinstance(baseline, float)  # noqa: S101  # the figures are typed for JSON
    assert isinstance(int8, float)  # noqa: S101
    return baseline / floor - int8


def _floor(model: ModelConfig, metric: str) -> float | None:
    return model.thresholds[metric].limits.get("lower_bound") if metric in model.thresholds else None
