"""Builds layers from the dict of a YOLOv5 yaml file."""

from __future__ import annotations

import ast
import math
import reprlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from torch import nn

from qgate.errors import ModelError
from qgate_yolov5 import blocks

if TYPE_CHECKING:
    from collections.abc import Mapping

# Blocks whose first yaml argument is a channel count that the width multiple scales.
_SCALED: dict[str, type[blocks.Block]] = {
    "Bottleneck": blocks.Bottleneck,
    "BottleneckCSP": blocks.BottleneckCSP,
    "C3": blocks.C3,
    "C3Ghost": blocks.C3Ghost,
    "C3SPP": blocks.C3SPP,
    "C3TR": blocks.C3TR,
    "Conv": blocks.Conv,
    "DWConv": blocks.DWConv,
    "Focus": blocks.Focus,
    "GhostBottleneck": blocks.GhostBottleneck,
    "GhostConv": blocks.GhostConv,
    "SPP": blocks.SPP,
    "SPPF": blocks.SPPF,
}
_REPEATS_INSIDE = {"BottleneckCSP", "C3", "C3Ghost", "C3TR"}
_TORCH: dict[str, type[nn.Module]] = {
    "nn.MaxPool2d": nn.MaxPool2d,
    "nn.Upsample": nn.Upsample,
    "nn.ZeroPad2d": nn.ZeroPad2d,
}
_ACTIVATIONS: dict[str, type[nn.Module]] = {
    "nn.ELU": nn.ELU,
    "nn.GELU": nn.GELU,
    "nn.Hardswish": nn.Hardswish,
    "nn.LeakyReLU": nn.LeakyReLU,
    "nn.Mish": nn.Mish,
    "nn.ReLU": nn.ReLU,
    "nn.ReLU6": nn.ReLU6,
    "nn.SiLU": nn.SiLU,
}
_CHANNEL_DIVISOR = 8
_LARGEST_NUMBER = 1e6

Number = TypeVar("Number", int, float)

# Where a layer reads: an absolute layer number, -1 for the image, or several of these.
Source: TypeAlias = "int | tuple[int, ...]"


@dataclass(frozen=True)
class Row:
    """One row of a yaml's `backbone` or `head`: `[from, number, module, args]`."""

    source: Source
    number: int
    kind: str
    arguments: list[Any]


class LayerBuilder:
    """Builds layers in order, with the yaml's depth and width multiples, keeping count of channels."""

    def __init__(self, yaml: Mapping[str, Any], num_anchors: int, num_classes: int) -> None:
        self.depth = read_number(yaml, "depth_multiple", 1.0)
        self.width = read_number(yaml, "width_multiple", 1.0)
        self.num_anchors = num_anchors
        self.num_classes = num_classes
        self.channels = [read_number(yaml, "ch", 3)]

    def add(self, row: Row) -> nn.Module:
        """Build the layer of `row`, whose sources are absolute (-1: the image). Raises `ModelError`."""
        before = self.channels[1:] or self.channels
        sources = row.source if isinstance(row.source, tuple) else (row.source,)
        inputs = [before[source] if source >= 0 else self.channels[0] for source in sources]
        number = max(round(row.number * self.depth), 1) if row.number > 1 else row.number
        try:
            layer, outputs = self._build(row, inputs, number)
        except (ArithmeticError, IndexError, RuntimeError, TypeError, ValueError) as error:
            raise ModelError(f"yaml: {row.kind} does not take {reprlib.repr(row.arguments)} ({error})") from error
        self.channels.append(outputs)
        return layer

    def _build(self, row: Row, inputs: list[int], number: int) -> tuple[nn.Module, int]:
        if row.kind == "Concat":
            return blocks.Concat(*row.arguments), sum(inputs)
        if row.kind == "Detect":
            return blocks.Detect(self._num_outputs(), inputs), self._num_outputs()
        if row.kind == "Segment":
            masks, hidden = row.arguments[2:]
            outputs = self._num_outputs(masks)
            return blocks.Segment(outputs, inputs, masks, self._scaled_channels(hidden)), outputs
        if row.kind in _TORCH:
            return _TORCH[row.kind](*row.arguments), inputs[0]
        if row.kind not in _SCALED:
            raise ModelError(f"yaml: {row.kind} is not among the blocks of YOLOv5 v5.0-v7.0 that are known")
        return self._scaled(row, inputs[0], number)

    def _scaled(self, row: Row, c1: int, number: int) -> tuple[nn.Module, int]:
        block, (channels, *rest) = _SCALED[row.kind], row.arguments
        c2 = self._scaled_channels(channels)
        if row.kind in _REPEATS_INSIDE:
            return block(c1, c2, number, *rest), c2
        layers = [block(c1, c2, *rest) for _ in range(number)]
        return (layers[0] if number == 1 else nn.Sequential(*layers)), c2

    def _scaled_channels(self, channels: int) -> int:
        return math.ceil(channels * self.width / _CHANNEL_DIVISOR) * _CHANNEL_DIVISOR

    def _num_outputs(self, masks: int = 0) -> int:
        return self.num_anchors * (5 + self.num_classes + masks)


def read_number(yaml: Mapping[str, Any], key: str, default: Number) -> Number:
    """Read a number of a yaml dict, of the default's type. Raises `ModelError`."""
    value = yaml.get(key, default)
    if not isinstance(value, int | float) or not 0 < value < _LARGEST_NUMBER:
        raise ModelError(f"yaml: {key} is {value!r}; expected a number above 0")
    return type(default)(value)


def read_rows(yaml: Mapping[str, Any]) -> list[Row]:
    """Read the layers of a yaml dict, with sources made absolute (-1 stays the image). Raises `ModelError`."""
    backbone, head = yaml.get("backbone"), yaml.get("head")
    if not isinstance(backbone, list) or not isinstance(head, list):
        raise ModelError("yaml: expected lists of layers as backbone and as head")
    return [_row(index, entry) for index, entry in enumerate(backbone + head)]


def _row(index: int, entry: Any) -> Row:
    match entry:
        case [source, int(number), str(kind), [*arguments]]:
            return Row(absolute_source(source, index), number, kind, [_literal(value) for value in arguments])
    raise ModelError(f"yaml: layer {index} is {reprlib.repr(entry)}; expected [from, number, module, args]")


def absolute_source(source: Any, index: int) -> Source:
    """Make a layer's `from` absolute: -1 is the layer before, for layer 0 the image. Raises `ModelError`."""
    if isinstance(source, list | tuple):
        return tuple(_absolute(one, index) for one in source)
    return _absolute(source, index)


def _absolute(source: Any, index: int) -> int:
    if isinstance(source, int) and -max(index, 1) <= source < index:
        return source if source >= 0 else index + source
    raise ModelError(f"model.{index} takes its input from layer {reprlib.repr(source)}; expected one before it")


def _literal(argument: Any) -> Any:
    """Read an argument as the yaml files write it: `None` and `False` come as strings, and so do names."""
    if isinstance(argument, str) and argument in {"None", "True", "False"}:
        return ast.literal_eval(argument)
    return argument


def read_activation(expression: str) -> nn.Module:
    """Build the module that a yaml's `activation` describes, e.g. `nn.LeakyReLU(0.1)`. Raises `ModelError`."""
    try:
        name, _, arguments = expression.partition("(")
        call = ast.parse(f"_({arguments}", mode="eval").body
        values = [ast.literal_eval(argument) for argument in call.args]  # type: ignore[attr-defined]
        named = {one.arg: ast.literal_eval(one.value) for one in call.keywords}  # type: ignore[attr-defined]
        return _ACTIVATIONS[name](*values, **named)
    except (AttributeError, KeyError, SyntaxError, TypeError, ValueError):
        known = ", ".join(sorted(_ACTIVATIONS))
        raise ModelError(f"yaml: activation {expression!r} is not known; expected one of {known}") from None
