"""An int8 model and its variants: the same, with some layers kept float."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from qgate.engine.artifact import load_reference, read_header
from qgate.quantization.layers import float_graph
from qgate.quantization.mixed import added_bytes, fused_names, quantized_layers, with_float
from qgate.quantization.prepare import quiet_torch_ao

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    from qgate.plugins import Registry
    from qgate.protocols import LoadedModel
    from qgate.quantization.layers import FloatGraph

__all__ = ["Variants"]


@dataclass(frozen=True)
class Variants:
    """The reference graph of an artifact, the float32 graph with the layers to put in their place, and the backend."""

    floats: FloatGraph
    reference: torch.fx.GraphModule
    backend: Any
    example_inputs: tuple[torch.Tensor, ...]

    @classmethod
    def of(cls, loaded: LoadedModel, artifact: Path, registry: Registry) -> Variants:
        """Read an artifact of a model. Raises `ArtifactError`."""
        recipe = read_header(artifact)["quantization"]
        backend = registry.backends.get(recipe["backend"])()
        equalized = loaded.example_inputs if recipe.get("equalization") else None
        floats = float_graph(loaded.module, backend.backend_config(), recipe["non_traceable"], equalized)
        return cls(floats, load_reference(artifact), backend, loaded.example_inputs)

    @property
    def layers(self) -> tuple[str, ...]:
        """Name the modules that have int8 weights."""
        return quantized_layers(self.reference)

    def fused_names(self, layer: str) -> tuple[str, ...]:
        """Name a layer and what its kernel takes in, for `ignored_scope`."""
        return fused_names(self.reference, layer)

    def added_bytes(self, layer: str) -> int:
        """Count the bytes that the artifact grows by where a layer is kept float."""
        return added_bytes(self.reference, layer)

    def graph(self, kept: Collection[str] = ()) -> torch.fx.GraphModule:
        """Give the reference graph with the kept layers float: close to that of a recipe that ignores them."""
        return with_float(self.reference, self.floats, self.backend.backend_config(), kept)

    def lowered(self, kept: Collection[str] = ()) -> torch.nn.Module:
        """Give what the backend's kernels make of that graph."""
        graph = self.graph(kept)
        if not hasattr(self.backend, "lower_graph"):
            return self.backend.lower(graph, self.example_inputs)  # type: ignore[no-any-return]
        lowered: torch.nn.Module = self.backend.lower_graph(graph)
        with torch.no_grad(), quiet_torch_ao():
            lowered(*(value.clone() for value in self.example_inputs))  # kernels that pack weights now need no lock
        return lowered
