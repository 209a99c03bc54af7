"""The formats that a model can be exported to; nothing here imports torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qgate.errors import ArtifactError

if TYPE_CHECKING:
    from pathlib import Path

    from qgate.plugins import Registry
    from qgate.protocols import Exporter

__all__ = ["available_exporter"]


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
