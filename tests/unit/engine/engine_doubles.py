"""What artifacts are made from, and backends that say what a test wants them to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from qgate import hookimpl
from qgate.plugins import load_registry
from qgate.quantization.backends import FbgemmBackend

if TYPE_CHECKING:
    from pathlib import Path

    import torch
    from small_networks import Network

    from qgate.plugins import Registry


@dataclass(frozen=True)
class Made:
    """An artifact, what it was made from, and the int8 model as it was before it was written."""

    path: Path
    network: Network
    before: torch.nn.Module


def header(**recipe: Any) -> dict[str, Any]:
    return {
        "quantization": {"backend": "fbgemm", "reduce_range": True} | recipe,
        "environment": {"cpu": "a CPU with VNNI"},
        "class_names": ["cat", "dog"],
    }


class Plugin:
    """A plugin with a backend that is fbgemm's under another name."""

    def __init__(self, *, reason: str | None, saturates: bool) -> None:
        self.reason, self.saturates = reason, saturates

    @hookimpl
    def qgate_register_backends(self) -> list[type]:
        outer = self

        class Other(FbgemmBackend):
            name = "other"

            def is_available(self) -> str | None:
                return outer.reason

            def needs_reduced_range(self) -> bool:
                return outer.saturates

            def lower(self, *arguments: Any) -> torch.nn.Module:
                return FbgemmBackend().lower(*arguments)

        return [Other]


def registry(*, reason: str | None = None, saturates: bool = False) -> Registry:
    """Give a registry with a backend "other" that is or is not available, and saturates or not."""
    return load_registry(plugins=[(Plugin(reason=reason, saturates=saturates), "others")])
