from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnxruntime
import openvino
import pytest
import torch
from onnx_forms import FORMS, SHAPE, drawn, form, traced
from small_networks import NETWORKS, Network, conv_bn_silu, flat, reference
from torch import nn

from qgate.errors import ArtifactError
from qgate.plugins import load_registry
from qgate_onnx.exporter import OnnxExporter

if TYPE_CHECKING:
    from torch import fx

RUNTIMES = ("onnxruntime", "openvino")
HEADER: dict[str, Any] = {
    "model": "small",
    "qgate_version": "1.2.3",
    "source_sha256": "ab",
    "quantization": {"backend": "onnxruntime", "num_samples": 8},
    "class_names": ["cat", "dog"],
    "input_description": {"input": {"layout": "NCHW"}},
}


def exported(graph: fx.GraphModule, *inputs: torch.Tensor, header: dict[str, Any] = HEADER) -> bytes:
    return OnnxExporter().export(graph, inputs, header)


def plainly(content: bytes, *inputs: torch.Tensor) -> list[np.ndarray]:
    """Run a file as any user of ONNX Runtime does, without qgate."""
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_inputs()]
    return session.run(None, {name: value.numpy() for name, value in zip(names, inputs, strict=True)})


def laid_out(outputs: list[np.ndarray]) -> torch.Tensor:
    return torch.cat([torch.from_numpy(value).flatten() for value in outputs])


@pytest.mark.parametrize("name", FORMS)
def test_a_form_gives_what_torch_gives_for_any_batch(name: str) -> None:
    graph, image = form(name), drawn(SHAPE)

    content = exported(graph, image)

    for batch in (image, drawn(SHAPE, batch=3, seed=1)):
        with torch.no_grad():
            expected = graph(batch)
        found = plainly(content, batch)
        assert [value.shape for value in found] == [tuple(value.shape) for value in _tensors(expected)]
        assert torch.allclose(laid_out(found), flat(expected), rtol=1e-4, atol=1e-5)


# Lengths of which made / given falls short of `made` in float32, or by which torch rounds a place down and ONNX does
# not; 5 to 1 keeps one value, and 7 * 1.3 is cut.
RESIZED: dict[str, tuple[int, Any]] = {
    "nearest, 7 to 31": (7, {"size": 31}),
    "nearest, 7 to 62": (7, {"size": 62}),
    "nearest, 14 to 62": (14, {"size": 62}),
    "nearest, 4 to 164": (4, {"size": 164}),
    "nearest, 8 to 3": (8, {"size": 3}),
    "nearest, by a factor": (7, {"scale_factor": 31 / 7}),
    "nearest, cut": (7, {"scale_factor": 1.3}),
    "linear, 7 to 31": (7, {"size": 31, "mode": "bilinear"}),
    "linear, 5 to 1": (5, {"size": 1, "mode": "bilinear"}),
    "linear, cut": (7, {"scale_factor": 1.3, "mode": "bilinear"}),
    "corners, 7 to 31": (7, {"size": 31, "mode": "bilinear", "align_corners": True}),
    "cubic, 7 to 31": (7, {"size": 31, "mode": "bicubic"}),
}


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("name", RESIZED)
def test_runtimes_resize_as_torch_does(name: str, runtime: str) -> None:
    side, how = RESIZED[name]
    graph, image = traced(lambda x: nn.functional.interpolate(x, **how)), drawn((1, 4, side, side))

    found = load_registry().backends.get(runtime)().read(exported(graph, image))(image)

    assert found.shape == graph(image).shape
    assert torch.allclose(found, graph(image), atol=1e-4)


def _tensors(output: Any) -> list[torch.Tensor]:
    return [output] if isinstance(output, torch.Tensor) else list(output)


# Which of its own kernels a runtime takes is its own affair, so a rounding may fall the other way, layer by layer.
@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("name", [name for name in NETWORKS if name != "kept_whole"])
def test_int8_outputs_are_within_one_step_of_the_reference_graph(name: str, runtime: str) -> None:
    network, backend = NETWORKS[name], load_registry().backends.get(runtime)()
    graph = backend.refine(reference(network, backend, float_outputs=getattr(backend, "float_outputs", False)))

    module = backend.lower(graph, network.inputs())

    for seed in (3, 4):
        inputs = network.inputs(seed)
        with torch.no_grad():
            expected, found = flat(graph(*inputs)), flat(module(*inputs))
            float32 = flat(network.module()(*inputs))
        step = max([float(expected.max() - expected.min()) / 255, *scales(graph)])
        assert found.shape == expected.shape
        assert float((found - expected).abs().max()) <= 1.01 * step
        assert float((found - float32).abs().max()) > 0  # it is int8


def scales(graph: fx.GraphModule) -> list[float]:
    """List the scales of outputs that are quantized."""
    (output,) = (node for node in graph.graph.nodes if node.op == "output")
    sources = [node.args[0] for node in output.all_input_nodes if node.target == "dequantize"]
    return [float(getattr(graph, str(source.args[1].target))) for source in sources]


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_outputs_have_the_structure_that_the_model_gives(runtime: str) -> None:
    class Structured(nn.Module):
        def forward(self, x: torch.Tensor) -> Any:
            return {"one": x.relu(), "more": (x + 1, [x * 2])}

    image = drawn(SHAPE)

    found = load_registry().backends.get(runtime)().lower(traced(Structured()), (image,))(image)

    assert list(found) == ["one", "more"]
    assert torch.equal(found["one"], image.relu())
    assert torch.equal(found["more"][0], image + 1)
    assert torch.equal(found["more"][1][0], image * 2)


def small() -> tuple[Network, fx.GraphModule]:
    network = Network(lambda: nn.Sequential(conv_bn_silu(3, 8), nn.Conv2d(8, 4, 1)))
    backend = load_registry().backends.get("onnxruntime")()
    return network, backend.refine(reference(network, backend))


def test_the_file_says_what_it_is() -> None:
    network, graph = small()

    model = onnx.load_model_from_string(exported(graph, *network.inputs()))

    onnx.checker.check_model(model, full_check=True)
    said = {entry.key: entry.value for entry in model.metadata_props}
    assert (said["model"], said["qgate_version"], said["source_sha256"]) == ("small", "1.2.3", "ab")
    for name in ("quantization", "class_names", "input_description"):
        assert json.loads(said[name]) == HEADER[name]
    assert model.producer_name == "qgate"
    assert model.opset_import[0].version >= 13
    dimension = model.graph.input[0].type.tensor_type.shape.dim[0]
    assert dimension.dim_param == "batch"


def test_weights_are_int8_with_a_scale_a_channel_and_activations_uint8() -> None:
    network, graph = small()

    model = onnx.load_model_from_string(exported(graph, *network.inputs()))

    constants = {value.name: onnx.numpy_helper.to_array(value) for value in model.graph.initializer}
    weights = [node for node in model.graph.node if node.op_type == "DequantizeLinear" and node.input[0] in constants]
    quantized = [node for node in model.graph.node if node.op_type == "QuantizeLinear"]
    assert [constants[node.input[0]].shape for node in weights] == [(8, 3, 3, 3), (4, 8, 1, 1)]
    for node in weights:
        values, scale, zero_point = (constants[name] for name in node.input)
        assert (values.dtype, zero_point.dtype) == (np.int8, np.int8)
        assert scale.shape == (len(values),)
        assert not zero_point.any()
    assert {constants[node.input[2]].dtype.name for node in quantized} == {"uint8"}


def test_onnx_runtime_has_an_int8_kernel_for_every_layer(tmp_path: Any) -> None:
    network, graph = small()
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")

    onnxruntime.InferenceSession(exported(graph, *network.inputs()), options, providers=["CPUExecutionProvider"])

    kinds = [node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node]
    assert kinds.count("QLinearConv") == 2
    assert {"QLinearSigmoid", "QLinearMul"} <= set(kinds)
    assert not {"Conv", "Sigmoid", "Mul"} & set(kinds)


class Rows(nn.Module):
    """A linear layer on what has more dimensions than two."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(8, 16), nn.Linear(16, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(self.first(x).relu())


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_linear_layers_on_maps_are_int8_too(runtime: str, tmp_path: Any) -> None:
    network, backend = Network(Rows, (2, 6, 8)), load_registry().backends.get(runtime)()
    graph = backend.refine(reference(network, backend))
    content = exported(graph, *network.inputs())

    found = backend.read(content)(*network.inputs(5))

    step = max(scales(graph))
    assert float((found - graph(*network.inputs(5))).abs().max()) <= 1.01 * step
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    assert "MatMul" not in [node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node]


def test_openvino_quantizes_behind_an_activation_only() -> None:
    network = Network(lambda: nn.Sequential(conv_bn_silu(3, 8), nn.Conv2d(8, 4, 1)))
    backend = load_registry().backends.get("openvino")()
    content = exported(backend.refine(reference(network, backend, float_outputs=True)), *network.inputs())

    core = openvino.Core()
    model = core.read_model(content, b"")
    model.reshape([1, 3, 8, 8])
    compiled = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})

    nodes = [node.get_rt_info() for node in compiled.get_runtime_model().get_ordered_ops()]
    kinds = [(info["layerType"].astype(str), info["primitiveType"].astype(str)) for info in nodes]
    layers = [primitive for kind, primitive in kinds if kind == "Convolution"]
    assert len(layers) == 2
    assert all(primitive.endswith("I8") for primitive in layers)
    assert "Swish" not in {kind for kind, _ in kinds}


class Fixed(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.reshape(1, -1) @ torch.ones(256, 2)


ONE_BATCH: dict[str, Any] = {
    "a size": Fixed,
    "a rank": lambda: lambda x: x.mean(dim=(1, 2, 3)).squeeze(),
    "a number of parts": lambda: lambda x: torch.cat(x.split(1), 1),
}


@pytest.mark.parametrize("name", ONE_BATCH)
def test_a_model_of_one_batch_keeps_it(name: str) -> None:
    image, model = drawn(SHAPE), ONE_BATCH[name]()

    content = exported(traced(model), image)

    shape = onnx.load_model_from_string(content).graph.input[0].type.tensor_type.shape
    assert [dimension.dim_value for dimension in shape.dim] == list(SHAPE)
    assert torch.allclose(laid_out(plainly(content, image)), model(image).flatten(), rtol=1e-4, atol=1e-4)


class Shuffled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.shuffle = nn.Conv2d(4, 4, 1), nn.PixelShuffle(2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.shuffle(self.stem(x))


class Ranked(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(4, 4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.argsort(self.stem(x))


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (Shuffled, 'there is no ONNX form here of module "shuffle" (PixelShuffle); replace it in the model, '),
        (Ranked, 'there is no ONNX form here of argsort behind module "stem" (node "argsort"); replace it in '),
        (lambda: nn.Sequential(nn.AdaptiveAvgPool2d(3)), 'module "0.0" (AdaptiveAvgPool2d) pools (8, 8) to (3, 3) by '),
        (nn.Softsign, 'there is no ONNX form here of module "0" (Softsign); replace it in the model, '),
        (lambda: nn.Softplus(1, 3.0), 'module "0" (Softplus) has the threshold 3; expected 20; replace it in the '),
        (lambda: nn.AvgPool2d(2, divisor_override=3), 'module "0" (AvgPool2d) overrides its divisor; replace it in '),
        (lambda: nn.GELU("tanh"), 'module "0" (GELU) approximates GELU ("tanh"); replace it in the model, '),
    ],
    ids=["module", "function", "arguments", "activation", "threshold", "divisor", "approximation"],
)
def test_what_has_no_form_is_named_with_its_module(model: Any, expected: str) -> None:
    with pytest.raises(ArtifactError) as caught:
        exported(traced(model()), drawn(SHAPE))

    assert str(caught.value).startswith(expected)
