"""The functions and methods of torch that have a form in ONNX."""

from __future__ import annotations

import math
import operator
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional

from qgate.errors import ArtifactError
from qgate_onnx import activations as act
from qgate_onnx import layers
from qgate_onnx.calls import fixed

if TYPE_CHECKING:
    from collections.abc import Callable

    from qgate_onnx.calls import Call
    from qgate_onnx.writer import Tensor

__all__ = ["FUNCTIONS", "METHODS", "identity"]

_LAST = 2**62  # an end that no dimension reaches


def identity(call: Call, x: Tensor, *_: Any, **__: Any) -> Tensor:  # noqa: ARG001  # whatever torch's takes
    """Give a value as it is."""
    return x


def _binary(op: str) -> Callable[..., str]:
    def written(call: Call, left: Any, right: Any, *, alpha: float = 1) -> str:
        return call.emit(op, left, right if alpha == 1 else call.emit("Mul", right, float(alpha)))

    return written


def _reshaped(call: Call, x: Tensor, *_: Any, **__: Any) -> str:
    """Write what leaves values in their order: the shape is known."""
    return call.reshaped(x)


def _concatenated(call: Call, tensors: Any, dim: int = 0, axis: int | None = None) -> str:
    return call.emit("Concat", *tensors, axis=dim if axis is None else axis)


def _stacked(call: Call, tensors: Any, dim: int = 0) -> str:
    axis = dim % len(call.shape)
    return call.emit("Concat", *(call.emit("Unsqueeze", value, [axis]) for value in tensors), axis=axis)


def _transposed(call: Call, x: Tensor, dim0: int, dim1: int) -> str:
    order = list(range(len(x.shape)))
    order[dim0], order[dim1] = order[dim1], order[dim0]
    return call.emit("Transpose", x, perm=order)


def _permuted(call: Call, x: Tensor, *dims: Any) -> str:
    order = dims[0] if isinstance(dims[0], tuple | list) else dims
    return call.emit("Transpose", x, perm=[dim % len(x.shape) for dim in order])


def _unsqueezed(call: Call, x: Tensor, dim: int) -> str:
    return call.emit("Unsqueeze", x, [dim % len(call.shape)])


def _parts(call: Call, x: Tensor, _size: Any = None, dim: int = 0, **_: Any) -> list[str]:
    """Write a split or a chunking, whose parts' lengths are known."""
    axis = dim % len(x.shape)
    lengths = [part.lengths[axis] for part in call.result]
    names = [f"{call.name}_{index}" for index in range(len(lengths))]
    if None in lengths:
        raise ArtifactError("splits the batch")
    return call.writer.call_several("Split", x.name, call.input(lengths), names=names, axis=axis)


def _indexed(call: Call, x: Any, index: Any) -> str:
    """Write x[index] for whole numbers, slices, None and an ellipsis."""
    items = _written_out(index if isinstance(index, tuple) else (index,), len(x.shape))
    dimensions = [item for item in items if item is not None]
    if not all(isinstance(item, int | slice) for item in dimensions):
        raise ArtifactError("indexes by a tensor")
    cuts = [(axis, *_cut(item)) for axis, item in enumerate(dimensions) if item != slice(None)]
    if cuts:
        axes, starts, ends, steps = (list(fixed(values)) for values in zip(*cuts, strict=True))
        x = call.emit("Slice", x, starts, ends, axes, steps)
    return call.reshaped(x) if any(not isinstance(item, slice) for item in items) else call.input(x)


def _written_out(items: tuple[Any, ...], rank: int) -> list[Any]:
    """Write an ellipsis, or what is not there at the end, as whole dimensions."""
    missing = [slice(None)] * (rank - sum(item is not None and item is not Ellipsis for item in items))
    place = next((place for place, item in enumerate(items) if item is Ellipsis), None)
    return [*items, *missing] if place is None else [*items[:place], *missing, *items[place + 1 :]]


def _cut(item: int | slice) -> tuple[Any, Any, Any]:
    if isinstance(item, int):
        return item, _LAST if item == -1 else item + 1, 1
    return item.start or 0, _LAST if item.stop is None else item.stop, item.step or 1


def _reduced(op: str) -> Callable[..., str]:
    def written(call: Call, x: Tensor, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> str:
        if dtype is not None:
            raise ArtifactError("says in which type")
        axes = list(range(len(x.shape))) if dim is None else [dim] if isinstance(dim, int) else list(dim)
        axes = [axis % len(x.shape) for axis in axes]
        if op == "ReduceSum":  # the first that takes its axes as an input
            return call.emit(op, x, axes, keepdims=int(keepdim))
        return call.emit(op, x, axes=axes, keepdims=int(keepdim))

    return written


_RELU, _SIGMOID, _TANH = (act.unary(op) for op in ("Relu", "Sigmoid", "Tanh"))
_ADD, _SUB, _MUL, _DIV, _POW = (_binary(op) for op in ("Add", "Sub", "Mul", "Div", "Pow"))
_MATMUL, _MEAN, _SUM, _MOST = _binary("MatMul"), _reduced("ReduceMean"), _reduced("ReduceSum"), _reduced("ReduceMax")
_SOFTMAX, _LOG_SOFTMAX = layers.softmax("Softmax"), layers.softmax("LogSoftmax")
_UNARY = {
    name: act.unary(op)
    for name, op in {"exp": "Exp", "log": "Log", "sqrt": "Sqrt", "neg": "Neg", "abs": "Abs", "erf": "Erf"}.items()
}

# The names in torch.nn.functional are often the very functions of torch.
FUNCTIONS: dict[Any, Callable[..., Any]] = {
    **dict.fromkeys((torch.conv1d, torch.conv2d, torch.conv3d), layers.convolution),
    **dict.fromkeys((torch.conv_transpose1d, torch.conv_transpose2d, torch.conv_transpose3d), layers.transposed),
    functional.linear: layers.linear,
    **dict.fromkeys((torch.matmul, torch.bmm, operator.matmul), _MATMUL),
    **dict.fromkeys((torch.add, operator.add, operator.iadd), _ADD),
    **dict.fromkeys((torch.sub, operator.sub, operator.isub), _SUB),
    **dict.fromkeys((torch.mul, operator.mul, operator.imul), _MUL),
    **dict.fromkeys((torch.div, operator.truediv, operator.itruediv), _DIV),
    **dict.fromkeys((torch.pow, operator.pow), _POW),
    **{getattr(torch, name): form for name, form in _UNARY.items()},
    operator.neg: _UNARY["neg"],
    operator.abs: _UNARY["abs"],
    math.sqrt: _UNARY["sqrt"],
    torch.cat: _concatenated,
    torch.stack: _stacked,
    **dict.fromkeys((torch.flatten, torch.reshape, torch.squeeze), _reshaped),
    torch.unsqueeze: _unsqueezed,
    torch.transpose: _transposed,
    torch.permute: _permuted,
    **dict.fromkeys((torch.chunk, torch.split), _parts),
    operator.getitem: _indexed,
    torch.mean: _MEAN,
    torch.sum: _SUM,
    torch.amax: _MOST,
    functional.pad: layers.pad,
    functional.interpolate: layers.resize,
    **dict.fromkeys((functional.max_pool1d, functional.max_pool2d, functional.max_pool3d), layers.max_pool),
    **dict.fromkeys((functional.avg_pool1d, functional.avg_pool2d, functional.avg_pool3d), layers.average_pool),
    **dict.fromkeys(
        (functional.adaptive_avg_pool1d, functional.adaptive_avg_pool2d), layers.adaptive_pool("AveragePool")
    ),
    **dict.fromkeys((functional.adaptive_max_pool1d, functional.adaptive_max_pool2d), layers.adaptive_pool("MaxPool")),
    functional.layer_norm: layers.layer_norm,
    **dict.fromkeys((functional.softmax, torch.softmax), _SOFTMAX),
    **dict.fromkeys((functional.log_softmax, torch.log_softmax), _LOG_SOFTMAX),
    **dict.fromkeys((functional.dropout, torch.detach), identity),
    **dict.fromkeys((functional.relu, torch.relu), _RELU),
    **dict.fromkeys((functional.sigmoid, torch.sigmoid), _SIGMOID),
    **dict.fromkeys((functional.tanh, torch.tanh), _TANH),
    **dict.fromkeys((torch.clamp, torch.clip), act.clamp),
    functional.hardtanh: lambda call, x, min_val=-1.0, max_val=1.0, inplace=False: act.clamp(call, x, min_val, max_val),  # noqa: ARG005
    functional.relu6: act.relu6,
    functional.silu: act.silu,
    functional.hardswish: act.hardswish,
    functional.hardsigmoid: act.hardsigmoid,
    functional.leaky_relu: act.leaky_relu,
    functional.elu: act.elu,
    functional.selu: act.selu,
    functional.celu: act.celu,
    functional.gelu: act.gelu,
    functional.mish: act.mish,
    functional.softplus: act.softplus,
    torch.prelu: act.prelu,
}

METHODS: dict[str, Callable[..., Any]] = {
    **{
        name: form
        for names, form in (
            (("add", "add_"), _ADD),
            (("sub", "sub_"), _SUB),
            (("mul", "mul_"), _MUL),
            (("div", "div_"), _DIV),
            (("relu", "relu_"), _RELU),
            (("sigmoid", "sigmoid_"), _SIGMOID),
            (("tanh", "tanh_"), _TANH),
            (("clamp", "clamp_"), act.clamp),
            (("matmul", "bmm"), _MATMUL),
            (("reshape", "view", "flatten", "unflatten", "squeeze"), _reshaped),
            (("contiguous", "clone", "detach", "float"), identity),
            (("chunk", "split"), _parts),
        )
        for name in names
    },
    **_UNARY,
    "pow": _POW,
    "unsqueeze": _unsqueezed,
    "transpose": _transposed,
    "permute": _permuted,
    "mean": _MEAN,
    "sum": _SUM,
    "amax": _MOST,
    "softmax": _SOFTMAX,
}
