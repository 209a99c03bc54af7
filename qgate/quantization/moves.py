"""Nodes that leave each value as it is and put it at another place."""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import nn
from torch.nn import functional

__all__ = ["JOINS", "argument", "asks_shape", "enlarges", "moves_values", "zero_padding"]

Modules = dict[str, nn.Module]
Node = Any  # torch.fx types each argument of a node as a union of twenty types

JOINS: set[Any] = {torch.cat, torch.stack}
_MOVING_MODULES = (
    nn.Identity,
    nn.Dropout,
    nn.Dropout2d,
    nn.Flatten,
    nn.Upsample,
    nn.PixelShuffle,
    nn.PixelUnshuffle,
    nn.ChannelShuffle,
)
_MOVING: set[Any] = {
    *JOINS,
    *(torch.flatten, torch.reshape, torch.permute, torch.transpose, torch.squeeze),
    *(torch.unsqueeze, torch.chunk, torch.split, torch.narrow, operator.getitem, functional.interpolate),
    *(functional.pixel_shuffle, functional.pixel_unshuffle, functional.channel_shuffle, functional.dropout),
}
_MOVING_METHODS = {
    *("reshape", "flatten", "permute", "transpose", "squeeze", "unsqueeze", "chunk", "split", "narrow", "contiguous"),
    *("view", "detach"),
}


def moves_values(node: Node, modules: Modules) -> bool:
    """Say whether each value of a node's output is one of its inputs' as it was, at another place."""
    if node.op == "call_module":
        module = modules[str(node.target)]
        return isinstance(module, _MOVING_MODULES) and getattr(module, "mode", "nearest") == "nearest"
    if node.op == "call_method":
        return node.target in _MOVING_METHODS and not isinstance(node.args[-1], torch.dtype)
    if node.target is functional.interpolate:
        return bool(argument(node, 3, "mode", "nearest") == "nearest")
    return node.op == "call_function" and node.target in _MOVING


def enlarges(node: Node, modules: Modules) -> bool:
    """Say whether a node that moves values repeats them, so that its input is better changed than its output."""
    module = modules.get(str(node.target)) if node.op == "call_module" else None
    return isinstance(module, nn.Upsample) or node.target is functional.interpolate


def asks_shape(node: Node) -> bool:
    """Say whether a node reads a tensor's shape only."""
    if node.op == "call_method":
        return node.target in {"size", "dim", "numel"}
    return node.target is getattr and str(node.args[1]) in {"shape", "ndim"}


def zero_padding(node: Node, modules: Modules) -> tuple[int, ...] | None:
    """Give what a node adds around a tensor, as `pad` takes it, where that is zeros."""
    module: Any = modules.get(str(node.target)) if node.op == "call_module" else None
    if isinstance(module, nn.ZeroPad2d):
        return tuple(module.padding)
    if node.target is not functional.pad or argument(node, 2, "mode", "constant") != "constant":
        return None
    return None if argument(node, 3, "value", None) else tuple(argument(node, 1, "pad", ()))


def argument(node: Node, place: int, name: str, default: Any) -> Any:
    """Give what a function is called with, by place or by name."""
    return node.args[place] if len(node.args) > place else node.kwargs.get(name, default)
