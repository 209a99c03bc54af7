"""What changes values one by one, in ONNX."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from qgate.errors import ArtifactError
from qgate_onnx.calls import fixed

if TYPE_CHECKING:
    from collections.abc import Callable

    from qgate_onnx.calls import Call

__all__ = [
    "celu",
    "clamp",
    "elu",
    "gelu",
    "hardsigmoid",
    "hardswish",
    "leaky_relu",
    "mish",
    "prelu",
    "relu6",
    "selu",
    "silu",
    "softplus",
    "unary",
]

_SAME = 20.0  # where softplus and its argument are the same float32


def unary(op: str) -> Callable[..., str]:
    """Give the form of a function that ONNX has by that name."""

    def written(call: Call, x: Any, inplace: bool = False) -> str:  # noqa: ARG001  # as torch calls it
        return call.emit(op, x)

    return written


def silu(call: Call, x: Any, inplace: bool = False) -> str:  # noqa: ARG001
    """Write x * sigmoid(x), which runtimes know for SiLU."""
    return call.emit("Mul", x, call.emit("Sigmoid", x))


def relu6(call: Call, x: Any, inplace: bool = False) -> str:  # noqa: ARG001
    """Write a clip at 0 and 6."""
    return clamp(call, x, 0.0, 6.0)


def clamp(call: Call, x: Any, min: Any = None, max: Any = None, inplace: bool = False) -> str:  # noqa: A002, ARG001
    """Write a clip; a bound may be missing."""
    low = call.input(float(fixed(min))) if min is not None else ""
    return call.emit("Clip", x, low, *([] if max is None else [float(fixed(max))]))


def hardswish(call: Call, x: Any, inplace: bool = False) -> str:  # noqa: ARG001
    """Write x * hardsigmoid(x)."""
    return call.emit("HardSwish", x)


def hardsigmoid(call: Call, x: Any, inplace: bool = False) -> str:  # noqa: ARG001
    """Write clip(x / 6 + 1 / 2, 0, 1)."""
    return call.emit("HardSigmoid", x, alpha=1 / 6, beta=0.5)


def leaky_relu(call: Call, x: Any, negative_slope: float = 0.01, inplace: bool = False) -> str:  # noqa: ARG001
    """Write a line with a knee."""
    return call.emit("LeakyRelu", x, alpha=float(negative_slope))


def elu(call: Call, x: Any, alpha: float = 1.0, inplace: bool = False) -> str:  # noqa: ARG001
    """Write an exponential linear unit."""
    return call.emit("Elu", x, alpha=float(alpha))


def selu(call: Call, x: Any, inplace: bool = False) -> str:  # noqa: ARG001
    """Write a scaled exponential linear unit; ONNX has torch's constants."""
    return call.emit("Selu", x)


def celu(call: Call, x: Any, alpha: float = 1.0, inplace: bool = False) -> str:  # noqa: ARG001
    """Write a continuous exponential linear unit."""
    return call.emit("Celu", x, alpha=float(alpha))


def prelu(call: Call, x: Any, weight: Any) -> str:
    """Write a line with a knee, whose slope may be each channel's own."""
    slope = weight if weight.numel() == 1 else weight.reshape(-1, *[1] * (len(call.shape) - 2))
    return call.emit("PRelu", x, slope)


def softplus(call: Call, x: Any, beta: float = 1.0, threshold: float = 20.0) -> str:
    """Write log(1 + exp(beta * x)) / beta. Beyond its threshold for beta * x torch gives x, which must be the same."""
    if threshold < _SAME:
        raise ArtifactError(f"has the threshold {threshold:g}; expected {_SAME:g}")
    if beta == 1:
        return call.emit("Softplus", x)
    return call.emit("Div", call.emit("Softplus", call.emit("Mul", x, float(beta))), float(beta))


def mish(call: Call, x: Any, inplace: bool = False) -> str:  # noqa: ARG001
    """Write x * tanh(softplus(x))."""
    return call.emit("Mul", x, call.emit("Tanh", call.emit("Softplus", x)))


def gelu(call: Call, x: Any, approximate: str = "none") -> str:
    """Write x / 2 * (1 + erf(x / sqrt(2))), in the order of operations that runtimes know for GELU."""
    if approximate != "none":
        raise ArtifactError(f'approximates GELU ("{approximate}")')
    error = call.emit("Erf", call.emit("Div", x, math.sqrt(2)))
    return call.emit("Mul", call.emit("Mul", x, call.emit("Add", error, 1.0)), 0.5)
