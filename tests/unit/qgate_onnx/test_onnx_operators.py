from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper
from onnx_forms import SHAPE, drawn
from torch import fx

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


SIDES = (1, 2, 7, 8)


def resize(scale: float = 1.0, size: int | None = None, **how: Any) -> tuple[Any, dict[str, Any]]:
    """Give a Resize of the last but one dimension of `SIDES`, and its constants."""
    node = helper.make_node("Resize", ["x", "", *(["scales"] if size is None else ["", "sizes"])], ["y"], **how)
    return node, {"scales": np.array([1, 1, scale, 1], np.float32), "sizes": np.array([1, 2, size or 1, 8])}


def named(mode: str, how: str, rounding: str | None = None) -> dict[str, str]:
    rounded = {} if rounding is None else {"nearest_mode": rounding}
    return {"mode": mode, "coordinate_transformation_mode": how, **rounded}


@pytest.mark.parametrize("scale", [1.0, 2.0, 3.0, 4.0, 1.5, 0.5, 0.6, 31 / 7, 1 / 7])
@pytest.mark.parametrize(
    "how",
    [
        named("nearest", "asymmetric", "floor"),
        named("linear", "half_pixel"),
        named("linear", "align_corners"),
        named("cubic", "half_pixel"),
    ],
    ids=lambda how: " ".join(how.values()),
)
def test_a_resizing_gives_what_onnx_runtime_gives(how: dict[str, str], scale: float, tmp_path: Path) -> None:
    compare(tmp_path, *arguments(resize(scale, **how)))


def arguments(given: tuple[Any, dict[str, Any]], shape: tuple[int, ...] = SIDES) -> tuple[Any, ...]:
    node, constants = given
    return node, shape, constants


@pytest.mark.parametrize("size", [1, 2, 31, 61, 62])
@pytest.mark.parametrize("mode", ["nearest", "linear"])
def test_a_resizing_to_a_size_makes_that_size(mode: str, size: int, tmp_path: Path) -> None:
    how = named(mode, "asymmetric", "floor") if mode == "nearest" else named(mode, "half_pixel")
    compare(tmp_path, *arguments(resize(size=size, **how)))


def test_a_resizing_to_one_value_makes_one(tmp_path: Path) -> None:
    node, constants = resize(size=1, **named("nearest", "asymmetric", "floor"))
    compare(tmp_path, node, (1, 2, 49, 8), constants)


@pytest.mark.parametrize("scale", [2.0, 3.0, 4.0])
def test_whole_factors_by_half_pixels_are_torchs_nearest(scale: float, tmp_path: Path) -> None:
    compare(tmp_path, *arguments(resize(scale)))


@pytest.mark.parametrize(
    ("scale", "how"),
    [
        (3.0, named("nearest", "asymmetric")),
        (4.0, named("nearest", "asymmetric")),
        (2.0, named("nearest", "half_pixel", "floor")),
        (2.0, named("nearest", "half_pixel", "ceil")),
        (2.0, named("nearest", "asymmetric", "ceil")),
        (3.0, named("nearest", "align_corners")),
        (2.0, named("linear", "asymmetric")),
        (1 / 7, named("linear", "pytorch_half_pixel")),
        (2.0, named("linear", "tf_crop_and_resize")),
        (2.0, {"mode": "cubic", "cubic_coeff_a": -0.5}),
        (2.0, {"mode": "cubic", "exclude_outside": 1}),
    ],
)
def test_places_that_torch_does_not_take_are_refused(scale: float, how: dict[str, Any], tmp_path: Path) -> None:
    said = refused(tmp_path, *arguments(resize(scale, **how)))

    assert said.startswith(f'{tmp_path / "model.onnx"}: operator Resize (node "y") resizes by "{how["mode"]}", "')
    assert "\n" not in said


@pytest.mark.parametrize(("op", "opset"), [("Upsample", 7), ("Upsample", 9), ("Resize", 10)])
def test_old_resizings_take_their_scales_and_are_asymmetric(op: str, opset: int, tmp_path: Path) -> None:
    scales = np.array([1, 1, 2, 1.5], np.float32)
    attribute = {"scales": scales.tolist()} if opset == 7 else {}
    inputs, constants = (["x"], None) if opset == 7 else (["x", "scales"], {"scales": scales})

    compare(tmp_path, helper.make_node(op, inputs, ["y"], **attribute), SHAPE, constants, opset)
    linear = helper.make_node(op, inputs, ["y"], mode="linear", **attribute)
    assert 'resizes by "linear", "asymmetric", and takes' in refused(tmp_path, linear, SHAPE, constants, opset)


def test_resized_channels_are_refused(tmp_path: Path) -> None:
    node = helper.make_node("Resize", ["x", "", "scales"], ["y"])

    said = refused(tmp_path, node, SHAPE, {"scales": np.array([1, 2, 1, 1], np.float32)})

    assert said.endswith("makes [1, 8, 8, 8] of [1, 4, 8, 8]; expected the same batch and channels, and no length of 0")


def ramp(shape: tuple[int, ...]) -> np.ndarray:
    return np.linspace(0.5, 2, int(np.prod(shape)), dtype=np.float32).reshape(shape)


@pytest.mark.parametrize(
    ("axis", "scale"),
    [(1, (4,)), (1, (3, 1)), (1, (3, 4)), (1, (1, 3, 4)), (-1, (4,)), (-1, (1,)), (2, (1, 1, 4))],
)
def test_a_layer_norm_normalizes_from_its_axis_on(axis: int, scale: tuple[int, ...], tmp_path: Path) -> None:
    node = helper.make_node("LayerNormalization", ["x", "scale", "shift"], ["y"], axis=axis)

    compare(tmp_path, node, (1, 3, 4), {"scale": ramp(scale), "shift": ramp(scale) - 1})


def test_a_layer_norm_that_scales_more_than_it_normalizes_is_refused(tmp_path: Path) -> None:
    node = helper.make_node("LayerNormalization", ["x", "scale"], ["y"])

    said = refused(tmp_path, node, (1, 3, 4), {"scale": ramp((3, 4))})

    assert said.endswith('(node "y") scales or shifts by [3, 4], but normalizes over [4] only')


@pytest.mark.parametrize(
    ("shape", "slopes"),
    [(SHAPE, (1,)), (SHAPE, (4, 1, 1)), (SHAPE, (1, 4, 1, 1)), ((1, 4, 4), (4, 1)), ((1, 4), (4,))],
)
def test_slopes_of_channels_are_read(shape: tuple[int, ...], slopes: tuple[int, ...], tmp_path: Path) -> None:
    compare(tmp_path, helper.make_node("PRelu", ["x", "slopes"], ["y"]), shape, {"slopes": ramp(slopes)})


@pytest.mark.parametrize(("shape", "slopes"), [((1, 4, 4), (4,)), (SHAPE, (8,)), (SHAPE, (4, 8, 8)), (SHAPE, (8, 1))])
def test_slopes_that_are_not_of_channels_are_refused(
    shape: tuple[int, ...], slopes: tuple[int, ...], tmp_path: Path
) -> None:
    node = helper.make_node("PRelu", ["x", "slopes"], ["y"])

    said = refused(tmp_path, node, shape, {"slopes": ramp(slopes)})

    assert said.endswith(f"has slopes of shape {list(slopes)}; expected one, or one a channel")


def test_slopes_before_broadcasting_are_of_channels(tmp_path: Path) -> None:
    slopes, x = ramp((4,)), drawn(SHAPE)

    module = loaded(tmp_path, written(helper.make_node("PRelu", ["x", "s"], ["y"]), SHAPE, {"s": slopes}, 6))

    assert torch.equal(module(x), torch.where(x < 0, x * torch.from_numpy(slopes).reshape(4, 1, 1), x))


def test_a_constant_of_one_number_is_concatenated(tmp_path: Path) -> None:
    node = helper.make_node("Concat", ["x", "one"], ["y"], axis=1)

    compare(tmp_path, node, (1, 7), {"one": np.float32([[0.5]])})


def test_a_constant_of_one_number_is_a_factor_of_a_product(tmp_path: Path) -> None:
    compare(tmp_path, helper.make_node("MatMul", ["x", "one"], ["y"]), (1, 3, 1), {"one": np.float32([[[0.5]]])})


@pytest.mark.parametrize("side", [7, 8])
@pytest.mark.parametrize(
    ("size", "stride", "pads"),
    [
        (3, 2, [0, 0, 1, 1]),
        (3, 2, [1, 1, 0, 0]),
        (3, 2, [0, 1, 1, 0]),
        (2, 1, [0, 0, 1, 1]),
        (2, 2, [0, 0, 1, 1]),
        (3, 1, [0, 0, 2, 2]),
        (5, 2, [1, 2, 3, 4]),
        (3, 1, [2, 2, 2, 2]),
    ],
)
def test_a_max_pooling_with_uneven_padding_adds_no_infinity(
    size: int, stride: int, pads: list[int], side: int, tmp_path: Path
) -> None:
    node = helper.make_node("MaxPool", ["x"], ["y"], kernel_shape=[size] * 2, strides=[stride] * 2, pads=pads)
    shape = (1, 4, side, side)

    compare(tmp_path, node, shape)

    values = every_value(loaded(tmp_path, written(node, shape, None, 17)), drawn(shape))
    assert all(value.isfinite().all() for value in values)


def every_value(module: Any, x: torch.Tensor) -> list[torch.Tensor]:
    class Recorder(fx.Interpreter):
        def run_node(self, n: fx.Node) -> Any:
            values.append(super().run_node(n))
            return values[-1]

    values: list[torch.Tensor] = []
    Recorder(module).run(x)
    return values


@pytest.mark.parametrize("how", [{"dilations": [2, 2], "pads": [0, 0, 1, 1]}, {"pads": [0, 0, 3, 3]}])
def test_a_max_pooling_that_needs_an_infinity_is_refused(how: dict[str, Any], tmp_path: Path) -> None:
    node = helper.make_node("MaxPool", ["x"], ["y"], kernel_shape=[3, 3], **how)

    said = refused(tmp_path, node, SHAPE)

    assert 'operator MaxPool (node "y") pads by [0, 0, ' in said


def test_an_average_pooling_with_dilations_is_refused(tmp_path: Path) -> None:
    node = helper.make_node("AveragePool", ["x"], ["y"], kernel_shape=[2, 2], dilations=[2, 2])

    assert refused(tmp_path, node, SHAPE, opset=19).endswith("spreads its windows; expected no dilations")
