"""What layers cost in time: which kernels run, and how long each layer takes in an artifact and in float32."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qgate.engine.artifact import load_artifact, load_reference, read_header
from qgate.quantization.operations import count_kernels, operations
from qgate.quantization.profile import Budget, Subject, profile

if TYPE_CHECKING:
    from pathlib import Path

    import torch

    from qgate.plugins import Registry
    from qgate.protocols import LoadedModel

__all__ = ["added_seconds", "kernels", "slowest", "subject"]

_ENGINES = {"x86": "fbgemm", "fused": "onednn"}  # whose kernels those are that oneDNN does not tell of, by backend
_NAMED = 3
_BRIEF = Budget(rounds=7, max_seconds=10.0)


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
    measured = profile(subject(loaded, artifact, registry), _BRIEF, lambda: None)
    return {layer.layer: layer.float32 - layer.int8 for layer in measured.layers}


def slowest(loaded: LoadedModel, artifact: Path, registry: Registry, ratio: float) -> list[dict[str, Any]]:
    """Name the layers that most keep int8 from being `ratio` times as fast as float32, the worst first, with seconds.

    Empty where the backend shows no graph.
    """
    if not hasattr(_backend(artifact, registry), "lower_graph"):
        return []
    measured = profile(subject(loaded, artifact, registry), _BRIEF, lambda: None)
    worst = [layer for layer in measured.worst(ratio)[:_NAMED] if layer.excess(ratio) > 0]
    return [{"layer": layer.layer, "float32": layer.float32, "int8": layer.int8} for layer in worst]


def _backend(artifact: Path, registry: Registry) -> Any:
    return registry.backends.get(read_header(artifact)["quantization"]["backend"])()


def _engine(backend: Any) -> str:
    return _ENGINES.get(backend.name, str(backend.name))


def subject(loaded: LoadedModel, artifact: Path, registry: Registry) -> Subject:
    """Give what is profiled: an artifact whose backend shows its graph, beside float32."""
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
