from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper
from onnx_forms import FORMS, SHAPE, drawn, form
from small_networks import flat
from torch import nn

from qgate.errors import ModelError
from qgate_onnx import loader
from qgate_onnx.exporter import OnnxExporter
from qgate_onnx.loader import OnnxLoader, OnnxOptions

if TYPE_CHECKING:
    from pathlib import Path


def load(path: Path, **options: Any) -> Any:
    return OnnxLoader().load(OnnxOptions(path, **options))


@pytest.mark.parametrize("name", FORMS)
def test_what_is_read_gives_what_onnx_runtime_gives(name: str, tmp_path: Path) -> None:
    path, image = tmp_path / "model.onnx", drawn(SHAPE, seed=2)
    path.write_bytes(OnnxExporter().export(form(name), (image,), {}))

    loaded = load(path)

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    expected = session.run(None, {session.get_inputs()[0].name: image.numpy()})
    with torch.no_grad():
        found = loaded.module(image)
    assert loaded.example_inputs[0].shape == SHAPE
    assert torch.allclose(flat(found), torch.cat([torch.from_numpy(value).flatten() for value in expected]), atol=1e-4)


def saved(
    folder: Path, nodes: list[Any], constants: dict[str, np.ndarray], shape: list[Any] | None = None, rank: int = 4
) -> Path:
    """Write a model from `x` to `y`, as other tools do."""
    given = helper.make_tensor_value_info("x", TensorProto.FLOAT, shape or list(SHAPE))
    result = helper.make_tensor_value_info("y", TensorProto.FLOAT, rank * [None])
    arrays = [onnx.numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "other", [given], [result], arrays)
    path = folder / "other.onnx"
    path.write_bytes(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]).SerializeToString())
    return path


def test_shapes_that_a_model_computes_are_constants_but_for_the_batch(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Gather", ["shape", "zero"], ["batch"]),
        helper.make_node("Unsqueeze", ["batch", "axes"], ["first"]),
        helper.make_node("Concat", ["first", "rest"], ["lengths"], axis=0),
        helper.make_node("Reshape", ["x", "lengths"], ["y"]),
    ]
    constants = {"zero": np.array(0), "axes": np.array([0]), "rest": np.array([-1])}

    loaded = load(saved(tmp_path, nodes, constants, ["n", 4, 8, 8], rank=2))

    assert loaded.example_inputs[0].shape == SHAPE
    batch = drawn(SHAPE, batch=3)
    assert torch.equal(loaded.module(batch), batch.flatten(1))


def test_layers_are_modules_that_a_recipe_can_name(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], name="/stem/conv/Conv", pads=[1, 1, 0, 0]),
        helper.make_node("Sigmoid", ["c"], ["s"], name="/stem/act/Sigmoid"),
        helper.make_node("Mul", ["c", "s"], ["y"], name="/stem/act/Mul"),
    ]
    weight = np.random.default_rng(0).normal(size=(6, 4, 2, 2)).astype(np.float32)

    loaded = load(saved(tmp_path, nodes, {"w": weight}), class_names=("cat", "dog"))

    modules = dict(loaded.module.named_modules())
    assert isinstance(modules["stem_conv_Conv"], nn.Conv2d)
    assert isinstance(modules["stem_act_Mul"], nn.SiLU)
    assert "stem_act_Sigmoid" not in modules
    assert loaded.class_names == ("cat", "dog")
    image = drawn(SHAPE)
    padded = nn.functional.pad(image, (1, 0, 1, 0))
    expected = nn.functional.silu(nn.functional.conv2d(padded, torch.from_numpy(weight)))
    assert torch.allclose(loaded.module(image), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("nodes", "shape", "expected"),
    [
        ([("Det", ["x"], {})], None, 'operator Det (node "a") is not among the operators that are read; see docs'),
        ([("QuantizeLinear", ["x", "one"], {})], None, 'operator QuantizeLinear (node "a"): the model is quantized'),
        (
            [("Conv", ["x", "w"], {"auto_pad": "SAME_UPPER"})],
            None,
            'operator Conv (node "a") has auto_pad = "SAME_UPPER"',
        ),
        ([("Conv", ["x", "x"], {})], None, 'operator Conv (node "a") computes its input 1; expected a constant'),
        ([("Relu", ["x"], {})], [1, 4, "h", "w"], "input \"x\" is of shape [1, 4, 'h', 'w']; say input_shapes = "),
    ],
    ids=["unknown operator", "quantized", "argument", "computed weight", "unknown size"],
)
def test_what_cannot_be_read_is_named(nodes: Any, shape: Any, expected: str, tmp_path: Path) -> None:
    made = [helper.make_node(op, inputs, ["y"], name="a", **given) for op, inputs, given in nodes]
    path = saved(tmp_path, made, {"one": np.float32(1), "w": np.ones((2, 4, 3, 3), np.float32)}, shape)

    with pytest.raises(ModelError) as caught:
        load(path)

    assert str(caught.value).startswith(f"{path}: {expected}")


def test_what_is_no_model_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    with pytest.raises(ModelError, match=r"model\.onnx: cannot be read: No such file"):
        load(path)
    path.write_bytes(b"something")
    with pytest.raises(ModelError, match=r"model\.onnx: is no ONNX model: "):
        load(path)


def with_weights_beside(folder: Path, weight: np.ndarray) -> Path:
    """Write a model whose weights are in a file beside it, as exporters do with large ones."""
    path = saved(folder, [helper.make_node("Conv", ["x", "w"], ["y"])], {"w": weight})
    onnx.save(onnx.load(path), path, save_as_external_data=True, location="w.data", size_threshold=0)
    return path


def test_weights_beside_the_file_are_found_from_any_folder_and_identify_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weight, elsewhere = np.ones((6, 4, 2, 2), np.float32), tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    path, image = with_weights_beside(tmp_path, weight), drawn(SHAPE)

    loaded = load(path)

    expected = nn.functional.conv2d(image, torch.from_numpy(weight))
    assert torch.allclose(loaded.module(image), expected, atol=1e-5)
    assert loaded.source_sha256 == load(path).source_sha256
    before = path.read_bytes()
    (tmp_path / "w.data").unlink()  # onnx would write behind what is there
    other = load(with_weights_beside(tmp_path, 2 * weight))
    assert path.read_bytes() == before
    assert other.source_sha256 != loaded.source_sha256
    (tmp_path / "w.data").unlink()
    with pytest.raises(ModelError, match=r"other\.onnx: is no ONNX model: .*w\.data"):
        load(path)


def test_a_model_of_one_file_is_identified_by_that_files_hash(tmp_path: Path) -> None:
    path = saved(tmp_path, [helper.make_node("Relu", ["x"], ["y"])], {})

    assert load(path).source_sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("kind", ["FLOAT16", "INT64", "UINT8"])
def test_inputs_that_are_not_float32_are_refused(kind: str, tmp_path: Path) -> None:
    path = saved(tmp_path, [helper.make_node("Neg" if kind != "UINT8" else "Flatten", ["x"], ["y"])], {})
    model = onnx.load(path)
    for value in (model.graph.input[0], model.graph.output[0]):
        value.type.tensor_type.elem_type = TensorProto.DataType.Value(kind)
    onnx.save(model, path)

    with pytest.raises(ModelError) as caught:
        load(path)

    assert str(caught.value) == f'{path}: input "x" is of type {kind}; expected FLOAT, give the float32 model'


def test_a_missing_package_is_named_with_what_installs_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loader, "find_spec", lambda _: None)

    with pytest.raises(ModelError, match=r"needs the package onnx: pip install 'pytest-qgate\[onnx\]'"):
        load(tmp_path / "model.onnx")
