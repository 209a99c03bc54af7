"""The modules that a graph calls: others may be left over in it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

__all__ = ["called_modules"]


def called_modules(graph: torch.fx.GraphModule) -> dict[str, torch.nn.Module]:
    """Give the modules that a graph calls, by name, each once, in the order in which they first run."""
    names = dict.fromkeys(str(node.target) for node in graph.graph.nodes if node.op == "call_module")
    return {name: graph.get_submodule(name) for name in names}
