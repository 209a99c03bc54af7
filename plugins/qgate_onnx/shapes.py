"""What of a graph depends on the size of the batch: found out by running it with two of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from qgate.quantization.prepare import quiet_torch_ao

__all__ = ["VARYING", "Shape", "holds_tensor", "results"]


@dataclass(frozen=True)
class Shape:
    """The shape of a tensor; None for a length that depends on the size of the batch."""

    lengths: tuple[int | None, ...]


class _Varying:
    """A number that depends on the size of the batch."""

    def __repr__(self) -> str:
        return "a number that depends on the size of the batch"


VARYING = _Varying()


def results(graph: fx.GraphModule, example_inputs: tuple[torch.Tensor, ...]) -> dict[fx.Node, Any]:
    """Give what each node gives: `Shape`s for tensors, other values as they are, `VARYING` for those that vary.

    A graph that takes no batch but that of its example inputs varies in nothing.
    """
    own = _run(graph, example_inputs)
    if not all(value.ndim for value in example_inputs):
        return own
    try:
        other = _run(graph, tuple(torch.cat([value, value[:1]]) for value in example_inputs))
    except Exception:  # noqa: BLE001  # whatever a network raises that is written for one size
        return own
    try:
        return {node: _merged(value, other[node]) for node, value in own.items()}
    except ValueError:  # ranks, or numbers of parts, that depend on the size of the batch
        return own


def holds_tensor(result: Any) -> bool:
    """Say whether a result is a tensor, or has one among its parts."""
    if isinstance(result, tuple | list):
        return any(map(holds_tensor, result))
    return isinstance(result, Shape)


class _Recorder(fx.Interpreter):
    def __init__(self, graph: fx.GraphModule) -> None:
        super().__init__(graph)
        self.found: dict[fx.Node, Any] = {}

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if n.op != "output":
            self.found[n] = _described(value)
        return value


def _run(graph: fx.GraphModule, inputs: tuple[torch.Tensor, ...]) -> dict[fx.Node, Any]:
    recorder = _Recorder(graph)
    with torch.no_grad(), quiet_torch_ao():
        recorder.run(*(value.clone() for value in inputs))
    return recorder.found


def _described(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return Shape(tuple(value.shape))
    if isinstance(value, tuple | list):
        return tuple(map(_described, value))
    return value


def _merged(one: Any, other: Any) -> Any:
    if isinstance(one, Shape):
        pairs = zip(one.lengths, other.lengths, strict=True)
        return Shape(tuple(length if length == its else None for length, its in pairs))
    if isinstance(one, tuple):
        return tuple(_merged(*pair) for pair in zip(one, other, strict=True))
    return one if one == other else VARYING
