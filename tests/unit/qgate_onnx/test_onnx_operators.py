from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper
from onnx_forms import SHAPE, drawn

from qgate.errors import ModelError
from qgate_onnx.loader import OnnxLoader, OnnxOptions

if TYPE_CHECKING:
    from pathlib import Path

Constants = dict[str, Any] | None


def written(node: Any, shape: tuple[int, ...], constants: Constants, opset: int) -> onnx.ModelProto:
    """Give the model of one operator from `x` to `y`."""
    given = helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)
    arrays = [onnx.numpy_helper.from_array(np.asarray(value), name) for name, value in (constants or {}).items()]
    graph = helper.make_graph([node], "one", [given], [onnx.ValueInfoProto(name="y")], arrays)
    opsets = [helper.make_opsetid("", opset)]
    bare = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    made = onnx.shape_inference.infer_shapes(bare).graph.output[0]
    graph.output[0].CopyFrom(helper.make_tensor_value_info("y", TensorProto.FLOAT, lengths(made)))
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def lengths(value: onnx.ValueInfoProto) -> list[int]:
    return [dimension.dim_value for dimension in value.type.tensor_type.shape.dim]


def loaded(folder: Path, model: onnx.ModelProto) -> torch.nn.Module:
    path = folder / "model.onnx"
    onnx.save(model, path)
    return OnnxLoader().load(OnnxOptions(path)).module


def compare(folder: Path, node: Any, shape: tuple[int, ...], constants: Constants = None, opset: int = 17) -> None:
    """Assert that what is read gives what ONNX Runtime gives."""
    model, x = written(node, shape, constants, opset), drawn(shape)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (expected,) = session.run(None, {"x": x.numpy()})

    found = loaded(folder, model)(x)

    assert found.shape == expected.shape
    assert torch.allclose(found, torch.from_numpy(expected), atol=1e-5)


def refused(folder: Path, node: Any, shape: tuple[int, ...], constants: Constants = None, opset: int = 17) -> str:
    """Give in which words an operator is refused."""
    with pytest.raises(ModelError) as caught:
        loaded(folder, written(node, shape, constants, opset))
    return str(caught.value)


@pytest.mark.parametrize("op", ["Softmax", "LogSoftmax"])
@pytest.mark.parametrize(
    ("opset", "attributes", "shape"),
    [
        (9, {}, (1, 10, 1, 1)),
        (9, {}, SHAPE),
        (11, {"axis": 1}, SHAPE),
        (11, {"axis": 2}, SHAPE),
        (11, {"axis": -1}, SHAPE),
        (11, {}, (1, 7)),
        (13, {}, SHAPE),
        (13, {"axis": 1}, SHAPE),
    ],
)
def test_a_softmax_normalizes_what_its_opset_says(
    op: str, opset: int, attributes: Any, shape: tuple[int, ...], tmp_path: Path
) -> None:
    compare(tmp_path, helper.make_node(op, ["x"], ["y"], **attributes), shape, opset=opset)


def test_an_old_softmax_takes_any_batch(tmp_path: Path) -> None:
    module = loaded(tmp_path, written(helper.make_node("Softmax", ["x"], ["y"]), SHAPE, None, 9))

    found = module(drawn(SHAPE, batch=3))

    assert found.shape == (3, *SHAPE[1:])
    assert torch.allclose(found.sum(dim=(1, 2, 3)), torch.ones(3))
