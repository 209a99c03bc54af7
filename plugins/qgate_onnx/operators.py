"""The operators of ONNX that have a form in torch, each as what makes it."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from qgate.errors import ModelError
from qgate_onnx.padding import padded, pads_of, torch_order
from qgate_onnx.pooling import average_pool, global_average_pool, global_max_pool, max_pool
from qgate_onnx.resizing import resized

if TYPE_CHECKING:
    from collections.abc import Callable

    from qgate_onnx.node import Node

__all__ = ["OPERATORS"]

_CONVOLUTIONS: dict[int, Any] = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
_TRANSPOSED: dict[int, Any] = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
_NORMS: dict[int, Any] = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}  # by rank
_ROWS = 2  # dimensions of what a linear layer takes
_RELU6 = 6.0
_BROADCAST = 7  # the opset; before it, several slopes were the channels'
_SOFTMAX_OF_ONE_AXIS = 13  # the opset; before it, all from the axis on is normalized together


def _filled(layer: Any, **tensors: torch.Tensor | None) -> Any:
    """Give a layer its parameters and buffers."""
    for name, value in tensors.items():
        if value is not None:
            getattr(layer, name).data = value.detach().clone()
    return layer


def _optional(node: Node, place: int) -> torch.Tensor | None:
    return node.tensor(place) if place < len(node.inputs) and node.inputs[place] is not None else None


def _convolution(node: Node) -> Any:
    weight = node.tensor(1)
    dimensions, groups = weight.ndim - 2, node.get("group", 1)
    x, padding = padded(node, pads_of(node, dimensions))
    bias = _optional(node, 2)
    layer = _CONVOLUTIONS[dimensions](
        *(weight.shape[1] * groups, weight.shape[0], tuple(weight.shape[2:])),
        stride=tuple(node.get("strides", [1] * dimensions)),
        padding=tuple(padding),
        dilation=tuple(node.get("dilations", [1] * dimensions)),
        groups=groups,
        bias=bias is not None,
    )
    return node.module(_filled(layer, weight=weight, bias=bias), x)


def _transposed(node: Node) -> Any:
    weight = node.tensor(1)
    dimensions, groups = weight.ndim - 2, node.get("group", 1)
    pads = pads_of(node, dimensions)
    if pads[:dimensions] != pads[dimensions:] or node.get("output_shape"):
        raise ModelError("pads its sides differently; expected the same padding on both")
    bias = _optional(node, 2)
    layer = _TRANSPOSED[dimensions](
        *(weight.shape[0], weight.shape[1] * groups, tuple(weight.shape[2:])),
        stride=tuple(node.get("strides", [1] * dimensions)),
        padding=tuple(pads[:dimensions]),
        output_padding=tuple(node.get("output_padding", [0] * dimensions)),
        groups=groups,
        bias=bias is not None,
        dilation=tuple(node.get("dilations", [1] * dimensions)),
    )
    return node.module(_filled(layer, weight=weight, bias=bias))


def _gemm(node: Node) -> Any:
    if node.get("transA", 0) or node.get("alpha", 1.0) != 1 or node.get("beta", 1.0) != 1:
        raise ModelError("transposes or scales; expected a linear layer")
    weight = node.tensor(1)
    weight = weight if node.get("transB", 0) else weight.T
    return _linear(node, weight, _optional(node, 2))


def _matmul(node: Node) -> Any:
    if isinstance(node.inputs[1], np.ndarray) and node.inputs[1].ndim == _ROWS:
        return _linear(node, node.tensor(1).T, None)
    return node.function(torch.matmul, node.tensor_value(0), node.tensor_value(1))


def _linear(node: Node, weight: torch.Tensor, bias: torch.Tensor | None) -> Any:
    outputs, inputs = weight.shape
    layer = nn.Linear(inputs, outputs, bias=bias is not None)
    shift = None if bias is None else bias.reshape(-1).expand(outputs)
    return node.module(_filled(layer, weight=weight.contiguous(), bias=shift))


def _batch_norm(node: Node) -> Any:
    scale, shift, mean, variance = (node.tensor(place) for place in range(1, 5))
    layer = _NORMS[len(node.shape())](len(scale), eps=node.get("epsilon", 1e-5))
    return node.module(_filled(layer, weight=scale, bias=shift, running_mean=mean, running_var=variance))


def _layer_norm(node: Node) -> Any:
    shift, over = _optional(node, 2), node.shape()[node.get("axis", -1) :]
    layer = nn.LayerNorm(over, eps=node.get("epsilon", 1e-5), bias=shift is not None)
    scale = _spread(node.tensor(1), over)
    return node.module(_filled(layer, weight=scale, bias=None if shift is None else _spread(shift, over)))


def _spread(values: torch.Tensor, over: tuple[int, ...]) -> torch.Tensor:
    """Give what is broadcast against an input the shape of the input's last dimensions. Raises `ModelError`."""
    leading = max(values.ndim - len(over), 0)
    if any(length != 1 for length in values.shape[:leading]):
        raise ModelError(f"scales or shifts by {list(values.shape)}, but normalizes over {list(over)} only")
    return values.reshape(values.shape[leading:]).expand(over)


def _clip(node: Node) -> Any:
    low, high = node.get("min", None, 1), node.get("max", None, 2)
    low, high = (-np.inf if low is None else float(low)), (np.inf if high is None else float(high))
    if low == 0 and high in (_RELU6, np.inf):
        return node.module(nn.ReLU6() if high == _RELU6 else nn.ReLU())
    return node.function(torch.clamp, node.value(0), None if low == -np.inf else low, None if high == np.inf else high)


def _mul(node: Node) -> Any:
    """Make a product; x * sigmoid(x) is SiLU, and is quantized as one."""
    left, right = node.value(0), node.value(1)
    for x, other in ((left, right), (right, left)):
        module = getattr(other, "op", "") == "call_module" and node.root.get_submodule(str(other.target))
        if isinstance(module, nn.Sigmoid | nn.Hardsigmoid) and other.args[0] is x:
            return node.module(nn.SiLU() if isinstance(module, nn.Sigmoid) else nn.Hardswish(), x)
    return node.function(operator.mul, left, right)


def _hardsigmoid(node: Node) -> Any:
    if abs(node.get("alpha", 0.2) - 1 / 6) > 1e-4 or node.get("beta", 0.5) != 0.5:  # noqa: PLR2004  # torch's
        raise ModelError("has a slope or a shift that torch's has not; expected alpha = 1/6, beta = 1/2")
    return node.module(nn.Hardsigmoid())


def _prelu(node: Node) -> Any:
    slope = node.tensor(1)
    if slope.numel() > 1 and node.opset >= _BROADCAST:
        behind = (1,) * (len(node.shape()) - 2)
        if tuple(slope.shape) not in {(len(slope), *behind), (1, slope.numel(), *behind)}:
            raise ModelError(f"has slopes of shape {list(slope.shape)}; expected one, or one a channel")
    return node.module(_filled(nn.PReLU(slope.numel()), weight=slope.reshape(-1)))


def _softmax(kind: Any) -> Callable[[Node], Any]:
    def make(node: Node) -> Any:
        if node.opset >= _SOFTMAX_OF_ONE_AXIS:
            return node.module(kind(dim=node.get("axis", -1)))
        shape = node.shape()
        axis = node.get("axis", 1) % len(shape)
        if axis == len(shape) - 1:
            return node.module(kind(dim=axis))
        rows = node.function(torch.flatten, node.value(0), axis)
        return node.function(torch.reshape, node.module(kind(dim=axis), rows), (-1, *shape[1:]))

    return make


def _binary(function: Any) -> Callable[[Node], Any]:
    return lambda node: node.function(function, node.value(0), node.value(1))


def _unary(function: Any) -> Callable[[Node], Any]:
    return lambda node: node.function(function, node.value(0))


def _activation(make: Callable[[Node], nn.Module]) -> Callable[[Node], Any]:
    return lambda node: node.module(make(node))


def _concatenated(node: Node) -> Any:
    parts = [node.tensor_value(place) for place in range(len(node.inputs))]
    return node.function(torch.cat, parts, node.get("axis"))


def _reshaped(node: Node) -> Any:
    given, wanted = node.shape(), node.get("shape", None, 1)
    lengths = [given[place] if length == 0 else length for place, length in enumerate(wanted)]
    if lengths[1:] == [-1] and lengths[0] == given[0]:
        return node.function(torch.flatten, node.value(0), 1)
    if lengths and lengths[0] == given[0] and -1 not in lengths:
        lengths[0] = -1  # the batch
    return node.function(torch.reshape, node.value(0), tuple(lengths))


def _flattened(node: Node) -> Any:
    if node.get("axis", 1) != 1:
        raise ModelError("keeps more than the first dimension; expected axis = 1")
    return node.module(nn.Flatten())


def _transposed_axes(node: Node) -> Any:
    order = node.get("perm", list(reversed(range(len(node.shape())))))
    return node.function(torch.permute, node.value(0), tuple(order))


def _squeezed(node: Node) -> Any:
    axes = node.get("axes", None, 1)
    return node.function(torch.squeeze, node.value(0), *([] if axes is None else [tuple(axes)]))


def _unsqueezed(node: Node) -> Any:
    axes = node.get("axes", None, 1)
    result, rank = node.value(0), len(node.shape()) + len(axes)
    for axis in sorted(axis % rank for axis in axes):
        result = node.function(torch.unsqueeze, result, axis)
    return result


def _sliced(node: Node) -> Any:
    starts, ends = node.get("starts", None, 1), node.get("ends", None, 2)
    axes = node.get("axes", list(range(len(starts))), 3)
    steps = node.get("steps", [1] * len(starts), 4)
    if any(step < 0 for step in steps):
        raise ModelError("walks backwards; torch has no such slice")
    items = [slice(None)] * len(node.shape())
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        items[axis] = slice(start, None if end >= node.shape()[axis] else end, step)
    return node.function(operator.getitem, node.value(0), tuple(items))


def _split(node: Node) -> Any:
    axis, sizes = node.get("axis", 0), node.get("split", None, 1)
    if sizes is None:
        each = -(-node.shape()[axis] // len(node.proto.output))
        sizes = each
    parts = node.function(torch.split, node.value(0), sizes, axis)
    return [node.function(operator.getitem, parts, place) for place in range(len(node.proto.output))]


def _gathered(node: Node) -> Any:
    index, axis = node.known(1), node.get("axis", 0)
    if index.ndim:
        raise ModelError("picks several indices; expected one")
    items = [slice(None)] * len(node.shape())
    items[axis] = int(index)  # type: ignore[call-overload]
    return node.function(operator.getitem, node.value(0), tuple(items))


def _padded_tensor(node: Node) -> Any:
    pads, mode = node.get("pads", None, 1), node.get("mode", "constant")
    kinds = {"constant": "constant", "reflect": "reflect", "edge": "replicate"}
    if mode not in kinds or (len(node.inputs) > 3 and node.inputs[3] is not None):  # noqa: PLR2004  # the axes
        raise ModelError(f'pads by "{mode}", or by axes; expected constant, reflect or edge, and every axis')
    around = torch_order(pads)
    while len(around) > 2 and around[-2:] == (0, 0):  # noqa: PLR2004  # one dimension's
        around = around[:-2]
    value = [node.get("value", 0.0, 2)] if mode == "constant" else []
    return node.function(functional.pad, node.value(0), around, kinds[mode], *value)


def _reduced(function: Any) -> Callable[[Node], Any]:
    def make(node: Node) -> Any:
        axes = node.get("axes", list(range(len(node.shape()))), 1)
        return node.function(function, node.value(0), tuple(axes), bool(node.get("keepdims", 1)))

    return make


def _identity(node: Node) -> Any:
    return node.value(0)


OPERATORS: dict[str, Callable[[Node], Any]] = {
    "Conv": _convolution,
    "ConvTranspose": _transposed,
    "Gemm": _gemm,
    "MatMul": _matmul,
    "BatchNormalization": _batch_norm,
    "LayerNormalization": _layer_norm,
    "MaxPool": max_pool,
    "AveragePool": average_pool,
    "GlobalAveragePool": global_average_pool,
    "GlobalMaxPool": global_max_pool,
    "Relu": _activation(lambda _: nn.ReLU()),
    "Sigmoid": _activation(lambda _: nn.Sigmoid()),
    "Tanh": _activation(lambda _: nn.Tanh()),
    "HardSwish": _activation(lambda _: nn.Hardswish()),
    "Mish": _activation(lambda _: nn.Mish()),
    "Softplus": _activation(lambda _: nn.Softplus()),
    "Gelu": _activation(lambda node: nn.GELU(node.get("approximate", "none"))),
    "LeakyRelu": _activation(lambda node: nn.LeakyReLU(node.get("alpha", 0.01))),
    "Elu": _activation(lambda node: nn.ELU(node.get("alpha", 1.0))),
    "Selu": _activation(lambda _: nn.SELU()),
    "Celu": _activation(lambda node: nn.CELU(node.get("alpha", 1.0))),
    "HardSigmoid": _hardsigmoid,
    "PRelu": _prelu,
    "Clip": _clip,
    "Softmax": _softmax(nn.Softmax),
    "LogSoftmax": _softmax(nn.LogSoftmax),
    "Add": _binary(operator.add),
    "Sub": _binary(operator.sub),
    "Mul": _mul,
    "Div": _binary(operator.truediv),
    "Pow": _binary(torch.pow),
    "Neg": _unary(torch.neg),
    "Sqrt": _unary(torch.sqrt),
    "Exp": _unary(torch.exp),
    "Log": _unary(torch.log),
    "Abs": _unary(torch.abs),
    "Erf": _unary(torch.erf),
    "Concat": _concatenated,
    "Reshape": _reshaped,
    "Flatten": _flattened,
    "Transpose": _transposed_axes,
    "Squeeze": _squeezed,
    "Unsqueeze": _unsqueezed,
    "Slice": _sliced,
    "Split": _split,
    "Gather": _gathered,
    "Resize": resized,
    "Upsample": resized,
    "Pad": _padded_tensor,
    "ReduceMean": _reduced(torch.mean),
    "ReduceSum": _reduced(torch.sum),
    "ReduceMax": _reduced(torch.amax),
    "Identity": _identity,
    "Dropout": _identity,
}
