"""The modules of torch.nn that have a form in ONNX."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from qgate_onnx import activations as act
from qgate_onnx import functions, layers
from qgate_onnx.writer import Tensor

if TYPE_CHECKING:
    from qgate_onnx.calls import Call

__all__ = ["MODULES"]


def _convolution(call: Call, layer: Any, x: Tensor) -> str:
    padding = layer.padding
    if layer.padding_mode != "zeros":
        around = layer._reversed_padding_repeated_twice
        x = Tensor(layers.pad(call, x, around, layer.padding_mode), x.shape)
        padding = 0
    weight = call.weight(layer)
    return layers.convolution(call, x, weight, layer.bias, layer.stride, padding, layer.dilation, layer.groups)


def _transposed(call: Call, layer: Any, x: Tensor) -> str:
    shape = (layer.stride, layer.padding, layer.output_padding, layer.groups, layer.dilation)
    return layers.transposed(call, x, call.weight(layer), layer.bias, *shape)


def _linear(call: Call, layer: Any, x: Tensor) -> str:
    if len(x.shape) == 2:  # noqa: PLR2004  # samples and features
        return layers.linear(call, x, call.weight(layer), layer.bias)
    return layers.product(call, x, call.weight(layer, transposed=True), layer.bias)  # kernels take it as it is stored


def _batch_norm(call: Call, norm: Any, x: Tensor) -> str:
    channels = norm.num_features
    scale = torch.ones(channels) if norm.weight is None else norm.weight
    shift = torch.zeros(channels) if norm.bias is None else norm.bias
    return call.emit("BatchNormalization", x, scale, shift, norm.running_mean, norm.running_var, epsilon=norm.eps)


def _sequential(call: Call, parts: Any, x: Tensor) -> Tensor:
    """Write what FX has fused, a layer and its activation, one after the other; all give the result's shape."""
    for part in parts:
        form = next((MODULES[kind] for kind in type(part).__mro__ if kind in MODULES), None)
        if form is None:
            raise TypeError(type(part).__name__)
        x = Tensor(form(call, part, x), call.shape)
    return x


def _by_attributes(form: Any, *names: str) -> Any:
    """Give the form of a module that hands its attributes on to a function."""

    def written(call: Call, module: Any, x: Tensor) -> Any:
        return form(call, x, **{name: getattr(module, name) for name in names})

    return written


_MAX_POOL = _by_attributes(
    layers.max_pool, "kernel_size", "stride", "padding", "dilation", "ceil_mode", "return_indices"
)
_AVERAGE = ("kernel_size", "stride", "padding", "ceil_mode", "count_include_pad")
_AVERAGE_POOL = _by_attributes(layers.average_pool, *_AVERAGE, "divisor_override")
_IDENTITY = _by_attributes(functions.identity)

MODULES: dict[type, Any] = {
    **dict.fromkeys((nn.Conv1d, nn.Conv2d, nn.Conv3d), _convolution),
    **dict.fromkeys((nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d), _transposed),
    nn.Linear: _linear,
    nn.Sequential: _sequential,
    **dict.fromkeys((nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d), _batch_norm),
    nn.LayerNorm: _by_attributes(layers.layer_norm, "normalized_shape", "weight", "bias", "eps"),
    **dict.fromkeys((nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d), _MAX_POOL),
    nn.AvgPool1d: _by_attributes(layers.average_pool, *_AVERAGE),
    **dict.fromkeys((nn.AvgPool2d, nn.AvgPool3d), _AVERAGE_POOL),
    **dict.fromkeys(
        (nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d), _by_attributes(layers.adaptive_pool("AveragePool"), "output_size")
    ),
    **dict.fromkeys(
        (nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d), _by_attributes(layers.adaptive_pool("MaxPool"), "output_size")
    ),
    nn.Upsample: _by_attributes(
        layers.resize, "size", "scale_factor", "mode", "align_corners", "recompute_scale_factor"
    ),
    **dict.fromkeys(
        (nn.ConstantPad1d, nn.ConstantPad2d),
        lambda call, module, x: layers.pad(call, x, module.padding, "constant", module.value),
    ),
    **dict.fromkeys(
        (nn.ReflectionPad1d, nn.ReflectionPad2d),
        lambda call, module, x: layers.pad(call, x, module.padding, "reflect"),
    ),
    **dict.fromkeys(
        (nn.ReplicationPad1d, nn.ReplicationPad2d),
        lambda call, module, x: layers.pad(call, x, module.padding, "replicate"),
    ),
    **dict.fromkeys((nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d), _IDENTITY),
    **dict.fromkeys((nn.Flatten, nn.Unflatten), lambda call, _, x: call.reshaped(x)),
    nn.Softmax: _by_attributes(layers.softmax("Softmax"), "dim"),
    nn.LogSoftmax: _by_attributes(layers.softmax("LogSoftmax"), "dim"),
    nn.ReLU: _by_attributes(act.unary("Relu")),
    nn.Sigmoid: _by_attributes(act.unary("Sigmoid")),
    nn.Tanh: _by_attributes(act.unary("Tanh")),
    nn.SiLU: _by_attributes(act.silu),
    nn.Hardtanh: lambda call, module, x: act.clamp(call, x, module.min_val, module.max_val),
    nn.Hardswish: _by_attributes(act.hardswish),
    nn.Hardsigmoid: _by_attributes(act.hardsigmoid),
    nn.LeakyReLU: _by_attributes(act.leaky_relu, "negative_slope"),
    nn.ELU: _by_attributes(act.elu, "alpha"),
    nn.CELU: _by_attributes(act.celu, "alpha"),
    nn.SELU: _by_attributes(act.selu),
    nn.PReLU: _by_attributes(act.prelu, "weight"),
    nn.Softplus: _by_attributes(act.softplus, "beta", "threshold"),
    nn.Mish: _by_attributes(act.mish),
    nn.GELU: _by_attributes(act.gelu, "approximate"),
}
