"""What ships: the artifact itself, or the file that its backend's runtime reads."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qgate.engine.artifact import example_inputs, load_artifact, load_reference, read_header, write_artifact
from qgate.engine.evaluate import brief
from qgate.engine.formats import available_exporter, shipped_path
from qgate.errors import ArtifactError

if TYPE_CHECKING:
    from pathlib import Path

    import torch

    from qgate.plugins import Registry
    from qgate.protocols import Exporter
    from qgate.results import Artifact

__all__ = ["exported_file", "load_shipped", "ship", "shipped_files"]


def exported_file(artifact: Path, exporter: Exporter, output: Path) -> Artifact:
    """Write what an exporter makes of an artifact on disk. Raises `ArtifactError`."""
    header = read_header(artifact)
    reference, inputs = load_reference(artifact), example_inputs(header)
    try:
        content = exporter.export(reference, inputs, header)
    except ArtifactError as error:
        raise error if error.path else ArtifactError(f"format {exporter.name}: {error.message}", path=output) from error
    except Exception as error:  # a plugin's exporter may raise anything
        raised = " ".join(brief(error).split())
        raise ArtifactError(f"format {exporter.name} cannot be written: {raised}", path=output) from error
    return write_artifact(output, content)


def ship(artifact: Path, registry: Registry) -> Artifact | None:
    """Write the file that the artifact's backend runs, beside the artifact; None where that is the artifact itself."""
    name = _backend(artifact)
    path = shipped_path(artifact, name, registry)
    if path is None:
        return None
    backend: Any = registry.backends.get(name)
    return exported_file(artifact, available_exporter(registry, backend.exporter, path), path)


def shipped_files(artifact: Path, registry: Registry) -> list[Path]:
    """List what `load_shipped` reads: the artifact, and where there is one the file beside it that its backend runs."""
    shipped = shipped_path(artifact, _backend(artifact), registry)
    return [artifact] if shipped is None else [artifact, shipped]


def load_shipped(artifact: Path, registry: Registry) -> torch.nn.Module:
    """Load what ships of an artifact from disk, in the form in which it runs. Raises `ArtifactError`."""
    name = _backend(artifact)
    path = shipped_path(artifact, name, registry)
    if path is None:
        return load_artifact(artifact, registry=registry)
    backend: Any = registry.backends.get(name)()
    shipped: torch.nn.Module = backend.load(path)
    return shipped


def _backend(artifact: Path) -> str:
    return str(read_header(artifact)["quantization"]["backend"])
