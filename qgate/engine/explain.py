"""Where a model's int8 time goes: the artifact's graph and float32's, layer by layer."""

from __future__ import annotations

import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qgate.engine.artifact import read_header
from qgate.engine.layer_times import subject
from qgate.engine.load import load_model
from qgate.engine.quantize import as_configured, available_backend, describe, resolve
from qgate.engine.state import torch_state
from qgate.errors import QuantizationError
from qgate.quantization.operations import count_kernels
from qgate.quantization.profile import Budget, profile

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qgate.config.model import ModelConfig
    from qgate.engine.gate import Gate
    from qgate.engine.progress import Progress
    from qgate.protocols import LoadedModel
    from qgate.quantization.profile import Profile

__all__ = ["Explanation", "explain", "last_artifact"]

_THOROUGH = Budget(rounds=20, max_seconds=30.0)


@dataclass(frozen=True)
class Explanation:
    """What `qgate explain` shows of one model.

    `anew` says why the artifact of the last run was not the one that was measured, "" where it was. `ratio` is the
    speedup that the limit demands, 1 where there is none; `kernels` counts nodes by the kernel that ran.
    """

    backend: str
    anew: str
    num_threads: int
    ratio: float
    limited: bool
    kernels: dict[str, int]
    profile: Profile


def explain(gate: Gate, name: str, progress: Progress) -> Explanation:
    """Measure one model's layers, in the artifact of the last run or, where that is none any more, in a new one.

    Raises `QGateError`, `QuantizationError` where the backend shows no graph.
    """
    model, settings = gate.config.models[name], gate.config.qgate
    backend = available_backend(model, gate.registry)
    _check_graph(model, backend)
    with torch_state(seed=settings.seed, num_threads=settings.num_threads):
        loaded = load_model(model, gate.registry)
        with last_artifact(gate, model, loaded, progress) as (path, anew):
            measured_on = subject(loaded, path, gate.registry)
        progress.start("explain", _THOROUGH.rounds)
        measured = profile(measured_on, _THOROUGH, progress.advance)
        progress.finish()
    floor = _floor(model)
    kernels = count_kernels({node.node: node.operation for layer in measured.layers for node in layer.nodes})
    return Explanation(backend.name, anew, settings.num_threads, floor or 1.0, floor is not None, kernels, measured)


def _check_graph(model: ModelConfig, backend: Any) -> None:
    if not hasattr(backend, "lower_graph"):
        raise QuantizationError(
            f'[models.{model.name}.quantization] backend "{backend.name}" has no lower_graph, without which its time '
            "cannot be told layer by layer; name another backend"
        )


def _floor(model: ModelConfig) -> float | None:
    table = model.thresholds.get("speedup")
    return table.limits.get("lower_bound") if table else None


@contextmanager
def last_artifact(
    gate: Gate, model: ModelConfig, loaded: LoadedModel, progress: Progress
) -> Iterator[tuple[Path, str]]:
    """Give the artifact of the last run, or else a new one, for as long as it is needed, and say why.

    What no gate has judged is not left where judged artifacts are.
    """
    path = gate.config.qgate.artifacts / f"{model.name}.pt"
    anew = _why_anew(path, gate, model, loaded)
    if not anew:
        yield path, ""
        return
    with tempfile.TemporaryDirectory(prefix="qgate-") as folder:
        path = Path(folder) / path.name
        gate.export(model.name, path, progress)
        yield path, anew


def _why_anew(path: Path, gate: Gate, model: ModelConfig, loaded: LoadedModel) -> str:
    if not path.exists():
        return "no run has left an artifact yet"
    header = read_header(path)
    if header["source_sha256"] != loaded.source_sha256:
        return "the weights are not those of the last run"
    backend = available_backend(model, gate.registry)
    recipe = resolve(model, gate.registry, backend, loaded.byte_scale)
    samples = header["quantization"]["num_samples"]
    said = describe(model, recipe, samples, gate.config.qgate.seed)
    return "" if said == as_configured(header["quantization"]) else "the recipe is not that of the last run"
