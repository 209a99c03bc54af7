"""Seeing what modules inside a graph give."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

__all__ = ["Watch"]


class Watch:
    """Collects the outputs of some modules of a graph while it runs, by name; of one that runs twice, the last."""

    def __init__(self, graph: torch.nn.Module, names: Sequence[str]) -> None:
        self._found: dict[str, torch.Tensor] = {}
        for name in names:
            graph.get_submodule(name).register_forward_hook(partial(self._keep, name))

    def __enter__(self) -> dict[str, torch.Tensor]:
        self._found.clear()
        return self._found

    def __exit__(self, *_: object) -> None:
        self._found.clear()

    def _keep(self, name: str, _module: torch.nn.Module, _inputs: Any, output: torch.Tensor) -> None:
        self._found[name] = output.clone()  # what runs next may work in place
