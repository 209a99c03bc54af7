"""Padding of layers: ONNX pads each side by itself, most layers of torch pad both sides alike."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch.nn import functional

from qgate.errors import ModelError

if TYPE_CHECKING:
    from qgate_onnx.node import Node

__all__ = ["padded", "pads_of", "torch_order"]


def pads_of(node: Node, dimensions: int) -> list[int]:
    """Give what is added before and behind each dimension, as ONNX has it. Raises `ModelError`."""
    if node.get("auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
        raise ModelError(f'has auto_pad = "{node.get("auto_pad")}"; write its pads out')
    return list(node.get("pads", [0] * 2 * dimensions))


def padded(node: Node, pads: list[int]) -> tuple[Any, list[int]]:
    """Give the input and the padding that a layer adds itself; what is not the same on both sides is added before."""
    half = len(pads) // 2
    if pads[:half] == pads[half:]:
        return node.value(0), pads[:half]
    return node.function(functional.pad, node.value(0), torch_order(pads), "constant", 0.0), [0] * half


def torch_order(pads: list[int]) -> tuple[int, ...]:
    """Give what is added in torch's order: both sides of the last dimension first."""
    half = len(pads) // 2
    return tuple(length for place in reversed(range(half)) for length in (pads[place], pads[half + place]))
