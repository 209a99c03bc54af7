"""The backend `fused`."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, ClassVar

import torch

from qgate.quantization.backends import OnednnBackend, loses_products
from qgate.quantization.fused.compiled import compiled
from qgate.quantization.fused.config import backend_config
from qgate.quantization.fused.kernels import multiply
from qgate.quantization.fused.lower import lower_graph
from qgate.quantization.prepare import quiet_torch_ao

if TYPE_CHECKING:
    from torch.ao.quantization.backend_config import BackendConfig

__all__ = ["FusedBackend"]


class FusedBackend:
    """oneDNN's kernels on plain uint8 tensors: a layer, its activation and its quantization are one call.

    What has no fused kernel is lowered as the backend `onednn` lowers it, and what that cannot lower stays float.
    """

    name: ClassVar[str] = "fused"
    float_outputs: ClassVar[bool] = True
    float_summands: ClassVar[bool] = True

    def is_available(self) -> str | None:
        """Give the reason why this torch or CPU lacks the kernels; None where it has them."""
        reason = OnednnBackend().is_available()
        return reason or (None if hasattr(torch.ops.onednn, "qconv2d_pointwise") else "this torch has no fused kernels")

    def backend_config(self) -> BackendConfig:
        """Give oneDNN's configuration with one quantization behind a layer and its activation."""
        return backend_config()

    def needs_reduced_range(self) -> bool:
        """Measure whether the kernels saturate on this CPU."""
        return _saturates()

    def lower(self, reference: torch.fx.GraphModule, example_inputs: tuple[torch.Tensor, ...]) -> torch.nn.Module:
        """Give the fused graph, compiled for inputs of the example's shapes where it can be."""
        return compiled(self.lower_graph(reference), example_inputs)

    def lower_graph(self, reference: torch.fx.GraphModule) -> torch.fx.GraphModule:
        """Give the fused graph; the nodes keep the names of the reference graph's."""
        with quiet_torch_ao():
            lowered = lower_graph(reference)
        if any(node.target is torch.quantize_per_tensor for node in lowered.graph.nodes):
            return OnednnBackend().lower_in_place(lowered)
        return lowered


@functools.cache
def _saturates() -> bool:
    return loses_products(multiply)
