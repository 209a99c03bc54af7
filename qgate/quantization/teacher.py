"""The float32 model as a teacher: its outputs, and those of modules inside it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from qgate.errors import QuantizationError
from qgate.quantization.layers import float_graph
from qgate.quantization.prepare import matching
from qgate.quantization.watch import Watch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch.ao.quantization.backend_config import BackendConfig

    from qgate.quantization.prepare import Recipe

__all__ = ["Teacher"]


class Teacher(torch.nn.Module):
    """A float32 model, fused as the student is, so that modules inside both can be compared.

    `watched` names the modules whose outputs are the feature maps that `patterns` ask for: of a module that is made of
    others, the last of them that runs. Raises `QuantizationError` where a pattern matches nothing that runs.
    """

    def __init__(
        self,
        module: torch.nn.Module,
        recipe: Recipe,
        config: BackendConfig,
        example_inputs: tuple[torch.Tensor, ...],
        patterns: Sequence[str] = (),
    ) -> None:
        super().__init__()
        equalized = example_inputs if recipe.equalization else None
        self.graph = float_graph(module, config, recipe.non_traceable, equalized).module
        self.watched = _last_of_each(self.graph, matching(module, patterns, "feature_maps"))
        self._watch = Watch(self.graph, self.watched)

    def forward(self, *inputs: torch.Tensor) -> tuple[Any, tuple[torch.Tensor, ...]]:
        """Give raw outputs and feature maps of a batch."""
        with torch.no_grad(), self._watch as found:
            outputs = self.graph(*(value.clone() for value in inputs))
            return outputs, tuple(found.values())


def _last_of_each(graph: torch.fx.GraphModule, names: Sequence[str]) -> tuple[str, ...]:
    called = [str(node.target) for node in graph.graph.nodes if node.op == "call_module"]
    found: dict[str, None] = {}
    for name in names:
        parts = [each for each in called if f"{each}.".startswith(f"{name}.")]
        if parts:
            found[parts[-1]] = None
    if names and not found:
        raise QuantizationError(f'feature_maps: none of the matching modules runs by itself, e.g. "{names[0]}"')
    return tuple(found)
