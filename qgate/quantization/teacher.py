"""The float32 model as a teacher: its outputs, and those of modules inside it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from qgate.errors import QuantizationError
from qgate.quantization.watch import Watch

if TYPE_CHECKING:
    from collections.abc import Sequence


__all__ = ["Teacher"]


class Teacher(torch.nn.Module):
    """A float32 graph, fused as the student is, so that modules inside both can be compared.

    `watched` names the modules whose outputs are the feature maps of the modules `names`: of a module that is made of
    others, the last of them that runs in `observed`, the calibrated graph, as well. Raises `QuantizationError` where
    none does.
    """

    def __init__(self, graph: torch.fx.GraphModule, observed: torch.fx.GraphModule, names: Sequence[str] = ()) -> None:
        super().__init__()
        self.graph = graph
        shared = set(_called(observed))
        self.watched = _last_of_each([name for name in _called(graph) if name in shared], names)
        self._watch = Watch(graph, self.watched)

    def forward(self, *inputs: torch.Tensor) -> tuple[Any, tuple[torch.Tensor, ...]]:
        """Give raw outputs and feature maps of a batch."""
        with torch.no_grad(), self._watch as found:
            outputs = self.graph(*(value.clone() for value in inputs))
            return outputs, tuple(found.values())


def _called(graph: torch.fx.GraphModule) -> list[str]:
    return [str(node.target) for node in graph.graph.nodes if node.op == "call_module"]


def _last_of_each(called: Sequence[str], names: Sequence[str]) -> tuple[str, ...]:
    found: dict[str, None] = {}
    for name in names:
        parts = [each for each in called if f"{each}.".startswith(f"{name}.")]
        if parts:
            found[parts[-1]] = None
    if names and not found:
        raise QuantizationError(f'feature_maps: none of the matching modules runs by itself, e.g. "{names[0]}"')
    return tuple(found)
