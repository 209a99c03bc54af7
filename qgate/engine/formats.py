"""The formats that a model can be exported to, and the one that a backend runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qgate.errors import ArtifactError

if TYPE_CHECKING:
    from pathlib import Path

    from qgate.plugins import Registry
    from qgate.protocols import Exporter

__all__ = ["available_exporter", "shipped_path"]


def available_exporter(registry: Registry, name: str, output: Path) -> Exporter:
    """Give the exporter of that name. Raises `PluginError`, or `ArtifactError` where it cannot write `output` here."""
    exporter = registry.exporters.get(name)()
    reason = exporter.is_available()
    if reason:
        raise ArtifactError(f'format "{name}" {reason}')
    if output.suffix != exporter.suffix:
        expected = f'expected a name that ends in "{exporter.suffix}" for format "{name}"'
        raise ArtifactError(f"{expected}; name another file with --output", path=output)
    return exporter


def shipped_path(artifact: Path, backend: str, registry: Registry) -> Path | None:
    """Give the path of the file beside an artifact that the backend runs; None where it runs the artifact itself."""
    kind: Any = registry.backends.get(backend)
    if not hasattr(kind, "exporter"):
        return None
    path = artifact.with_suffix(registry.exporters.get(kind.exporter).suffix)
    return path if path != artifact else artifact.with_stem(f"{artifact.stem}-{kind.exporter}")
