"""What the nodes of a reference graph do to values, where there is a kernel for that."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any

import torch
from torch import fx, nn
from torch.fx.node import map_arg
from torch.nn import functional

from qgate.quantization.fused.config import ACTIVATION_FUNCTIONS, ACTIVATION_METHODS, ACTIVATION_MODULES
from qgate.quantization.fused.kernels import PostOp
from qgate.quantization.moves import argument

if TYPE_CHECKING:
    from qgate.quantization.fused.tables import Function

__all__ = ["elementwise", "is_sum", "pooling", "post_op"]

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
    """Give what oneDNN calls an activation, where torch hands any layer's on to it."""
    if isinstance(part, fx.Node):
        return _module_op(modules[str(part.target)] if part.op == "call_module" else _as_module(part))
    return _module_op(part)


def _module_op(module: nn.Module | None) -> PostOp | None:
    if isinstance(module, nn.Hardtanh):  # ReLU6 is one
        return PostOp("hardtanh", (float(module.min_val), float(module.max_val)))
    if isinstance(module, nn.LeakyReLU):
        return PostOp("leaky_relu", (module.negative_slope,))
    if isinstance(module, nn.GELU):
        return PostOp("gelu", algorithm=module.approximate)
    names = {nn.ReLU: "relu", nn.SiLU: "swish", nn.Hardswish: "hardswish", nn.Tanh: "tanh"}
    name = next((name for kind, name in names.items() if isinstance(module, kind)), None)
    return PostOp(name) if name else None


def _as_module(node: fx.Node) -> nn.Module | None:
    """Give the module that does what a function or method does; None where there is none."""
    kind = _MODULES.get(node.target)
    return kind(**node.kwargs) if kind and len(node.args) == 1 else None


_MODULES: dict[Any, Any] = {
    **dict.fromkeys((functional.relu, torch.relu, "relu", "relu_"), nn.ReLU),
    **dict.fromkeys((torch.tanh, "tanh", "tanh_"), nn.Tanh),
    functional.relu6: nn.ReLU6,
    functional.hardtanh: nn.Hardtanh,
    functional.leaky_relu: nn.LeakyReLU,
    functional.silu: nn.SiLU,
    functional.hardswish: nn.Hardswish,
    functional.gelu: nn.GELU,
}


def is_sum(node: Node) -> bool:
    """Say whether a node adds two tensors or numbers of a graph."""
    is_addition = node.target in {operator.add, torch.add} and not node.kwargs
    return is_addition and len(node.args) == 2 and all(isinstance(part, fx.Node) for part in node.args)  # noqa: PLR2004


Window = tuple[tuple[int, int], tuple[int, int], tuple[int, int]]


def pooling(node: Node, modules: Modules) -> Window | None:
    """Give kernel, stride and padding of a plain two-dimensional max pooling."""
    module: Any = modules.get(str(node.target)) if node.op == "call_module" else None
    if isinstance(module, nn.MaxPool2d):
        found = [getattr(module, name) for name in _POOLING]
        indices = module.return_indices
    elif node.target in {functional.max_pool2d, torch.max_pool2d}:
        found = [argument(node, place, *named) for place, named in enumerate(_POOLING.items(), start=1)]
        indices = argument(node, 6, "return_indices", default=False)
    else:
        return None
    kernel, stride, padding, dilation, ceil_mode = found
    if _pair(dilation) != (1, 1) or ceil_mode or indices:
        return None
    return _pair(kernel), _pair(stride or kernel), _pair(padding)


_POOLING = {"kernel_size": None, "stride": None, "padding": 0, "dilation": 1, "ceil_mode": False}


def _pair(value: Any) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else tuple(value)
