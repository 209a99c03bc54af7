"""What the nodes of a reference graph do to values: change each by itself, or only move them."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any

import torch
from torch import fx, nn
from torch.fx.node import map_arg
from torch.nn import functional

from qgate.quantization.fused.config import ACTIVATION_FUNCTIONS, ACTIVATION_METHODS, ACTIVATION_MODULES

if TYPE_CHECKING:
    from qgate.quantization.fused.kernels import PostOp
    from qgate.quantization.fused.tables import Function

__all__ = ["asks_shape", "elementwise", "enlarges", "is_sum", "moves_values", "pooling", "post_op", "zero_padding"]

Modules = dict[str, nn.Module]
Node = Any  # as in lower.py

_ELEMENTWISE: set[Any] = {
    *ACTIVATION_FUNCTIONS,
    *(operator.add, operator.sub, operator.mul, operator.truediv, operator.neg, operator.abs),
    *(
        torch.add,
        torch.sub,
        torch.mul,
        torch.div,
        torch.neg,
        torch.abs,
        torch.clamp,
        torch.exp,
        torch.square,
        torch.sqrt,
    ),
}
_ELEMENTWISE_METHODS = {
    *ACTIVATION_METHODS,
    *("clamp", "clamp_", "clip"),
    *("add", "sub", "mul", "div", "neg", "abs", "exp", "square", "sqrt"),
}
_MOVING_MODULES = (nn.Identity, nn.Dropout, nn.Dropout2d, nn.Flatten, nn.Upsample, nn.PixelShuffle, nn.PixelUnshuffle)
_MOVING: set[Any] = {
    *(torch.cat, torch.stack, torch.flatten, torch.reshape, torch.permute, torch.transpose, torch.squeeze),
    *(torch.unsqueeze, torch.chunk, torch.split, torch.narrow, operator.getitem, functional.interpolate),
    *(functional.pixel_shuffle, functional.pixel_unshuffle, functional.dropout),
}
_MOVING_METHODS = {
    *("reshape", "flatten", "permute", "transpose", "squeeze", "unsqueeze", "chunk", "split", "narrow", "contiguous"),
    "detach",
}


def elementwise(part: Node, modules: Modules) -> Function | None:
    """Give what a node or module does to each value of its one tensor; None where it does something else."""
    if isinstance(part, nn.Module):
        return (lambda x: part(x.clone())) if isinstance(part, ACTIVATION_MODULES) else None
    if len(part.all_input_nodes) != 1:
        return None
    if part.op == "call_module":
        return elementwise(modules[str(part.target)], modules)
    if part.op == "call_function" and part.target in _ELEMENTWISE:
        return lambda x: part.target(*_filled(part.args, x), **_filled(part.kwargs, x))
    if part.op == "call_method" and part.target in _ELEMENTWISE_METHODS:
        return lambda x: getattr(x.clone(), str(part.target))(*_filled(part.args[1:], x), **_filled(part.kwargs, x))
    return None


def _filled(arguments: Any, x: torch.Tensor) -> Any:
    return map_arg(arguments, lambda _: x.clone())  # some functions work in place


def post_op(part: Node, modules: Modules) -> PostOp | None:
    """Give oneDNN's name and arguments of an activation, where torch hands it on to oneDNN."""
    if isinstance(part, fx.Node) and part.op == "call_module":
        return post_op(modules[str(part.target)], modules)
    if isinstance(part, nn.ReLU6) or _calls(part, functional.relu6):
        return "hardtanh", (0.0, 6.0)
    if isinstance(part, nn.Hardtanh):
        return "hardtanh", (float(part.min_val), float(part.max_val))
    for name, module, functions in _POST_OPS:
        if isinstance(part, module) or _calls(part, *functions):
            return name, ()
    return None


_POST_OPS: tuple[tuple[str, type, tuple[Any, ...]], ...] = (
    ("relu", nn.ReLU, (functional.relu, torch.relu, "relu", "relu_")),
    ("swish", nn.SiLU, (functional.silu,)),
    ("hardswish", nn.Hardswish, (functional.hardswish,)),
)


def _calls(part: Node, *targets: Any) -> bool:
    return isinstance(part, fx.Node) and part.target in targets


def is_sum(node: Node) -> bool:
    """Say whether a node adds two tensors or numbers of a graph."""
    is_addition = node.target in {operator.add, torch.add} and not node.kwargs
    return is_addition and len(node.args) == 2 and all(isinstance(part, fx.Node) for part in node.args)  # noqa: PLR2004


def moves_values(node: Node, modules: Modules) -> bool:
    """Say whether each value of a node's output is one of its inputs' as it was, at another place."""
    if node.op == "call_module":
        module = modules[str(node.target)]
        return isinstance(module, _MOVING_MODULES) and getattr(module, "mode", "nearest") == "nearest"
    if node.op == "call_method":
        return node.target in _MOVING_METHODS
    if node.target is functional.interpolate:
        return bool(_argument(node, 3, "mode", "nearest") == "nearest")
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


Window = tuple[tuple[int, int], tuple[int, int], tuple[int, int]]


def pooling(node: Node, modules: Modules) -> Window | None:
    """Give kernel, stride and padding of a plain two-dimensional max pooling."""
    module: Any = modules.get(str(node.target)) if node.op == "call_module" else None
    if isinstance(module, nn.MaxPool2d):
        found = [getattr(module, name) for name in _POOLING]
        indices = module.return_indices
    elif node.target in {functional.max_pool2d, torch.max_pool2d}:
        found = [_argument(node, place, *named) for place, named in enumerate(_POOLING.items(), start=1)]
        indices = _argument(node, 6, "return_indices", default=False)
    else:
        return None
    kernel, stride, padding, dilation, ceil_mode = found
    if _pair(dilation) != (1, 1) or ceil_mode or indices:
        return None
    return _pair(kernel), _pair(stride or kernel), _pair(padding)


_POOLING = {"kernel_size": None, "stride": None, "padding": 0, "dilation": 1, "ceil_mode": False}


def zero_padding(node: Node, modules: Modules) -> tuple[int, ...] | None:
    """Give what a node adds around a tensor, as `pad` takes it, where that is zeros."""
    module: Any = modules.get(str(node.target)) if node.op == "call_module" else None
    if isinstance(module, nn.ZeroPad2d):
        return tuple(module.padding)
    if node.target is not functional.pad or _argument(node, 2, "mode", "constant") != "constant":
        return None
    return None if _argument(node, 3, "value", None) else tuple(_argument(node, 1, "pad", ()))


def _argument(node: Node, place: int, name: str, default: Any) -> Any:
    return node.args[place] if len(node.args) > place else node.kwargs.get(name, default)


def _pair(value: Any) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else tuple(value)
