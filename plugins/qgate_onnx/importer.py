"""A float ONNX model as a torch module that FX can trace: its layers are modules of torch.nn."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator
from torch import fx, nn

from qgate.errors import ModelError
from qgate_onnx.node import Node
from qgate_onnx.operators import OPERATORS

__all__ = ["imported"]

_QUANTIZED = {"QuantizeLinear", "DequantizeLinear", "QLinearConv", "QLinearMatMul", "ConvInteger", "MatMulInteger"}


def imported(model: onnx.ModelProto, shapes: dict[str, tuple[int, ...]]) -> fx.GraphModule:
    """Turn a model into a torch module, for inputs of these shapes. Raises `ModelError`, which names the operator.

    What a model computes from shapes is computed once. So sizes are kept, but for the batch's
    where that is seen to be one.
    """
    return _Import(_of_shapes(model, shapes)).run()


def _of_shapes(model: onnx.ModelProto, shapes: dict[str, tuple[int, ...]]) -> onnx.ModelProto:
    fixed = onnx.ModelProto()
    fixed.CopyFrom(model)
    for value in fixed.graph.input:
        for dimension, length in zip(value.type.tensor_type.shape.dim, shapes.get(value.name, ()), strict=False):
            dimension.dim_value = length
    del fixed.graph.value_info[:]
    return onnx.shape_inference.infer_shapes(fixed, data_prop=True)


class _Import:
    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = model
        self.root, self.graph = nn.Module(), fx.Graph()
        self.values: dict[str, Any] = {"": None}
        self.names: set[str] = set()
        self.opsets = {item.domain: item.version for item in model.opset_import}
        graph = model.graph
        self.shapes = {
            value.name: lengths
            for value in (*graph.input, *graph.value_info, *graph.output)
            if (lengths := _lengths(value)) is not None
        }

    def run(self) -> fx.GraphModule:
        graph = self.model.graph
        constants = {value.name: numpy_helper.to_array(value) for value in graph.initializer}
        self.values.update(constants)
        for value in graph.input:
            if value.name not in constants:
                self.values[value.name] = self.graph.placeholder(self._name(value.name))
        for proto in graph.node:
            self._add(proto)
        outputs = tuple(self._output(value.name) for value in graph.output)
        self.graph.output(outputs[0] if len(outputs) == 1 else outputs)
        module = fx.GraphModule(self.root, self.graph)
        self.graph.eliminate_dead_code()
        module.delete_all_unused_submodules()
        module.recompile()
        return module.eval()

    def _output(self, name: str) -> fx.Node:
        value = self.values[name]
        if not isinstance(value, fx.Node):
            raise ModelError(f'output "{name}" is a constant; nothing of it can be judged')
        return value

    def _add(self, proto: onnx.NodeProto) -> None:
        known = self._known(proto)
        if known is not None:
            self.values.update(zip(proto.output, known, strict=False))
            return
        made = self._made(proto)
        self.values.update(zip(proto.output, made if isinstance(made, list) else [made], strict=False))

    def _known(self, proto: onnx.NodeProto) -> list[Any] | None:
        """Compute what depends on constants and shapes only; None where a value is computed from the inputs."""
        if proto.op_type == "Shape" and proto.input[0] in self.shapes and not proto.attribute:
            return [np.array(self.shapes[proto.input[0]], dtype=np.int64)]
        given = {name: self.values.get(name) for name in proto.input if name}
        if proto.op_type in _QUANTIZED or any(not isinstance(value, np.ndarray) for value in given.values()):
            return None
        try:
            return list(ReferenceEvaluator(proto, opsets=self.opsets).run(None, given))
        except Exception as error:
            raise ModelError(f"{_place(proto)} cannot be computed: {error}") from error

    def _made(self, proto: onnx.NodeProto) -> Any:
        if proto.op_type in _QUANTIZED:
            raise ModelError(f"{_place(proto)}: the model is quantized already; give the float32 model")
        make = OPERATORS.get(proto.op_type) if proto.domain in ("", "ai.onnx") else None
        if make is None:
            raise ModelError(f"{_place(proto)} is not among the operators that are read; see docs/runtimes.md")
        inputs = [self._input(name, proto) for name in proto.input]
        name = self._name(proto.name or proto.output[0])
        opset = self.opsets.get("", self.opsets.get("ai.onnx", 1))
        try:
            return make(Node(proto, inputs, self.shapes, self.root, self.graph, name, opset))
        except ModelError as error:
            raise ModelError(f"{_place(proto)} {error.message}") from error

    def _input(self, name: str, proto: onnx.NodeProto) -> Any:
        if name not in self.values:
            raise ModelError(f'{_place(proto)} reads "{name}", which nothing gives')
        return self.values[name]

    def _name(self, wanted: str) -> str:
        """Make a name that Python takes, and that is not taken."""
        base = re.sub(r"\W+", "_", wanted).strip("_")
        base = base if base and not base[0].isdigit() else f"node_{base}"
        name, number = base, 1
        while name in self.names:
            name, number = f"{base}_{number}", number + 1
        self.names.add(name)
        return name


def _place(proto: onnx.NodeProto) -> str:
    return f'operator {proto.op_type} (node "{proto.name or proto.output[0]}")'


def _lengths(value: onnx.ValueInfoProto) -> tuple[int, ...] | None:
    if not value.type.tensor_type.HasField("shape"):
        return None
    dimensions = value.type.tensor_type.shape.dim
    if not all(dimension.HasField("dim_value") for dimension in dimensions):
        return None
    return tuple(dimension.dim_value for dimension in dimensions)
