"""Where a model's int8 time goes: the artifact's graph and float32's, layer by layer."""

from __future__ import annotations

import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qgate.engine.artifact import load_artifact, load_reference, read_header
from qgate.engine.load import load_model
from qgate.engine.quantize import as_configured, available_backend, describe, resolve
from qgate.engine.state import torch_state
from qgate.errors import QuantizationError
from qgate.quantization.operations import count_kernels, operations
from qgate.quantization.profile import Budget, Subject, profile

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch

    from qgate.config.model import ModelConfig
    from qgate.engine.gate import Gate
    from qgate.engine.progress import Progress
    from qgate.plugins import Registry
    from qgate.protocols import LoadedModel
    from qgate.quantization.profile import Profile

__all__ = ["Explanation", "added_seconds", "explain", "kernels", "last_artifact", "slowest"]

_ENGINES = {"x86": "fbgemm", "fused": "onednn"}  # whose kernels those are that oneDNN does not tell of, by backend
_NAMED = 3
_THOROUGH = Budget(rounds=20, max_seconds=30.0)
_BRIEF = Budget(rounds=7, max_seconds=10.0)


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
            subject = _subject(loaded, path, gate.registry)
        progress.start("explain", _THOROUGH.rounds)
        measured = profile(subject, _THOROUGH, progress.advance)
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


def kernels(artifact: Path, registry: Registry, inputs: tuple[torch.Tensor, ...]) -> dict[str, int]:
    """Run an artifact once and count its nodes by the kernel that ran; empty where its backend shows no graph."""
    backend = _backend(artifact, registry)
    if not hasattr(backend, "lower_graph"):
        return {}
    return count_kernels(operations(backend.lower_graph(load_reference(artifact)), inputs, _engine(backend)))


def added_seconds(loaded: LoadedModel, artifact: Path, registry: Registry) -> dict[str, float]:
    """Give by how much each layer would be slower in float32, in seconds; empty where the backend shows no graph."""
    if not hasattr(_backend(artifact, registry), "lower_graph"):
        return {}
    measured = profile(_subject(loaded, artifact, registry), _BRIEF, lambda: None)
    return {layer.layer: layer.float32 - layer.int8 for layer in measured.layers}


def slowest(loaded: LoadedModel, artifact: Path, registry: Registry, ratio: float) -> list[dict[str, Any]]:
    """Name the layers that most keep int8 from being `ratio` times as fast as float32, the worst first, with seconds.

    Empty where the backend shows no graph.
    """
    if not hasattr(_backend(artifact, registry), "lower_graph"):
        return []
    measured = profile(_subject(loaded, artifact, registry), _BRIEF, lambda: None)
    worst = [layer for layer in measured.worst(ratio)[:_NAMED] if layer.excess(ratio) > 0]
    return [{"layer": layer.layer, "float32": layer.float32, "int8": layer.int8} for layer in worst]


def _floor(model: ModelConfig) -> float | None:
    table = model.thresholds.get("speedup")
    return table.limits.get("lower_bound") if table else None


def _backend(artifact: Path, registry: Registry) -> Any:
    return registry.backends.get(read_header(artifact)["quantization"]["backend"])()


def _engine(backend: Any) -> str:
    return _ENGINES.get(backend.name, str(backend.name))


def _subject(loaded: LoadedModel, artifact: Path, registry: Registry) -> Subject:
    backend, recipe = _backend(artifact, registry), read_header(artifact)["quantization"]
    return Subject(
        module=loaded.module,
        lowered=backend.lower_graph(load_reference(artifact)),
        shipped=load_artifact(artifact, registry=registry),
        inputs=loaded.example_inputs,
        config=backend.backend_config(),
        engine=_engine(backend),
        ignored_scope=recipe["ignored_scope"],
        non_traceable=recipe["non_traceable"],
    )


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
