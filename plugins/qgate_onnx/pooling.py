"""ONNX's poolings as layers of torch."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn import functional

from qgate.errors import ModelError
from qgate_onnx.padding import pads_of, torch_order

if TYPE_CHECKING:
    from collections.abc import Callable

    from qgate_onnx.node import Node

__all__ = ["average_pool", "global_average_pool", "global_max_pool", "max_pool"]

_MAX_POOLS: dict[int, Any] = {1: nn.MaxPool1d, 2: nn.MaxPool2d, 3: nn.MaxPool3d}
_AVERAGE_POOLS: dict[int, Any] = {1: nn.AvgPool1d, 2: nn.AvgPool2d, 3: nn.AvgPool3d}
_GLOBAL_POOLS: dict[int, Any] = {1: nn.AdaptiveAvgPool1d, 2: nn.AdaptiveAvgPool2d, 3: nn.AdaptiveAvgPool3d}
_GLOBAL_MAX_POOLS: dict[int, Any] = {1: nn.AdaptiveMaxPool1d, 2: nn.AdaptiveMaxPool2d, 3: nn.AdaptiveMaxPool3d}


def max_pool(node: Node) -> Any:
    """Make a pooling; no infinity is added where torch does not pad as the model does, for observers would see it."""
    size = node.get("kernel_shape")
    pads, ceil = pads_of(node, len(size)), bool(node.get("ceil_mode", 0))
    for layer in (_max_pool_layer(node, pads[: len(size)], cut) for cut in (ceil, not ceil)):
        if _gives_result(layer, node):  # as many windows, which begin at the same places
            return node.module(layer)
    if ceil or max(node.get("dilations", [1])) > 1 or any(map(operator.ge, pads, size * 2)):
        raise ModelError(f"pads by {pads}; expected pads below the window's size, no dilations and ceil_mode = 0")
    # Each window that reaches beyond an edge holds that edge too, so to repeat it changes no maximum.
    x = node.function(functional.pad, node.value(0), torch_order(pads), "replicate")
    return node.module(_max_pool_layer(node, [0] * len(size), ceil=False), x)


def _max_pool_layer(node: Node, padding: list[int], ceil: bool) -> nn.Module:
    size = node.get("kernel_shape")
    strides, dilations = node.get("strides", [1] * len(size)), node.get("dilations", [1] * len(size))
    layer: nn.Module = _MAX_POOLS[len(size)](
        tuple(size), tuple(strides), tuple(padding), tuple(dilations), ceil_mode=ceil
    )
    return layer


def _gives_result(layer: nn.Module, node: Node) -> bool:
    try:
        found = layer(torch.empty(node.shape(), device="meta"))
    except RuntimeError:  # torch pads by half a window at most
        return False
    return tuple(found.shape) == node.result_shape()


def average_pool(node: Node) -> Any:
    """Make a pooling that torch computes too. Raises `ModelError`."""
    size = node.get("kernel_shape")
    pads = pads_of(node, len(size))
    if pads[: len(size)] != pads[len(size) :]:
        raise ModelError("pads its sides differently; expected the same padding on both")
    if max(node.get("dilations", [1])) > 1:
        raise ModelError("spreads its windows; expected no dilations")
    layer = _AVERAGE_POOLS[len(size)](
        *(tuple(size), tuple(node.get("strides", [1] * len(size))), tuple(pads[: len(size)])),
        ceil_mode=bool(node.get("ceil_mode", 0)),
        count_include_pad=bool(node.get("count_include_pad", 0)),
    )
    return node.module(layer)


def _global_pool(kinds: dict[int, Any]) -> Callable[[Node], Any]:
    def make(node: Node) -> Any:
        dimensions = len(node.shape()) - 2
        return node.module(kinds[dimensions]((1,) * dimensions if dimensions > 1 else 1))

    return make


global_average_pool, global_max_pool = _global_pool(_GLOBAL_POOLS), _global_pool(_GLOBAL_MAX_POOLS)
