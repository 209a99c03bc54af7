"""The forms that `runtimes.py` compares: one small function or class for each way to run the network.

To add one, write a function that builds a module for a `Setting`, and name it in `FORMS`. It may raise
`UnavailableError`; what it imports need not be installed.
"""

from __future__ import annotations

import copy
import functools
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from qgate.engine.progress import Silent, StepClock
from qgate.engine.quantize import quantize
from qgate.errors import QGateError
from qgate.quantization.backends import saturates
from qgate.quantization.float_forms import channels_last, float_forms
from qgate_onnx.exporter import OnnxExporter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from qgate.config.model import ModelConfig
    from qgate.engine.load import Inputs
    from qgate.plugins import Registry


class UnavailableError(QGateError):
    """A form that cannot run here."""


@dataclass(frozen=True)
class Setting:
    """What all forms are timed at: threads, the side of square images in pixels, images a batch."""

    threads: int
    size: int
    batch: int

    def __str__(self) -> str:
        return f"{self.threads} thread{'s' * (self.threads > 1)}, {self.size}x{self.size}, batch {self.batch}"


@dataclass(frozen=True, eq=False)
class Network:
    """The float32 network and what every quantizer gets: the same `samples`, each a preprocessed batch of one."""

    config: ModelConfig
    registry: Registry
    inputs: Inputs
    chosen: list[int]
    samples: tuple[torch.Tensor, ...]
    folder: Path

    @property
    def module(self) -> torch.nn.Module:
        """Give the float32 module as it was loaded."""
        return self.inputs.loaded.module

    def images(self, setting: Setting) -> torch.Tensor:
        """Give calibration images as one float32 batch of the setting's shape; their values stay those of bytes."""
        batch = torch.cat([self.samples[index % len(self.samples)] for index in range(setting.batch)])
        return torch.nn.functional.interpolate(batch, (setting.size, setting.size)).contiguous()


@dataclass(frozen=True)
class Form:
    """One way to run the network. `feed` puts float32 images (N, C, H, W) into memory as the form wants them."""

    build: Callable[[Network, Setting], torch.nn.Module]
    feed: Callable[[Network, torch.Tensor], torch.Tensor] = lambda _, images: images


def as_channels_last(_: Network, images: torch.Tensor) -> torch.Tensor:
    """Put the channels last, as torch's own fast kernels want them."""
    return channels_last(images)


def as_bytes(network: Network, images: torch.Tensor) -> torch.Tensor:
    """Give the bytes that the images were made of, channels last as in a decoded image. Raises `UnavailableError`."""
    scale = network.inputs.loaded.byte_scale
    if scale is None:
        raise UnavailableError("the loader does not say what scale its bytes have")
    return channels_last((images / scale).round().to(torch.uint8))


@functools.lru_cache(maxsize=1)
def torch_floats(network: Network, setting: Setting) -> dict[str, torch.nn.Module]:
    """Give the float32 forms that qgate compares int8 with."""
    return float_forms(network.module, (network.images(setting),), network.config.quantization.non_traceable)


def torch_float(network: Network, setting: Setting, name: str) -> torch.nn.Module:
    """Give one of them."""
    forms = torch_floats(network, setting)
    if name not in forms:
        raise UnavailableError("torch cannot trace the network")
    return forms[name]


@functools.cache
def reference_graph(network: Network, backend: str) -> torch.fx.GraphModule:
    """Quantize by the configured recipe, for one of qgate's backends."""
    config = replace(network.config, quantization=replace(network.config.quantization, backend=backend))
    return quantize(config, network.registry, network.inputs, network.chosen, StepClock(Silent()))[0]


def qgate_int8(network: Network, setting: Setting, backend: str) -> torch.nn.Module:
    """Give the int8 network in the fastest form of one of qgate's backends."""
    if backend not in network.registry.backends:
        raise UnavailableError("this qgate has no such backend")
    reference = copy.deepcopy(reference_graph(network, backend))
    reference.meta["byte_scale"] = network.inputs.loaded.byte_scale  # as an artifact gives it
    return network.registry.backends.get(backend)().lower(reference, (network.images(setting),))


def compiled(module: torch.nn.Module, images: torch.Tensor) -> torch.nn.Module:
    """Compile with Inductor for one shape, constants folded: what its documents advise for inference on CPUs."""
    from torch._inductor import config

    inductor: Any = torch.compile(copy.deepcopy(module), dynamic=False)
    with torch.inference_mode(), config.patch(freezing=True):
        inductor(images.clone())  # compiles for tensors of inference mode; without a C++ compiler, this raises
    return inductor  # type: ignore[no-any-return]  # of a module, `compile` makes a module


def inductor_float(network: Network, setting: Setting) -> torch.nn.Module:
    """Compile the float32 network."""
    return compiled(torch_float(network, setting, "eager"), network.images(setting))


@functools.cache
def pt2e_graph(network: Network) -> torch.nn.Module:
    """Quantize by torchao's export flow, with its quantizer for x86 and Inductor, for images of any size."""
    import torchao.quantization.pt2e.quantizer.x86_inductor_quantizer as x86
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    dynamic = dict.fromkeys((0, 2, 3), torch.export.Dim.AUTO)
    pair = torch.cat([network.samples[0]] * 2)  # a batch of one would be taken for a constant
    exported = torch.export.export(network.module, (pair,), dynamic_shapes=(dynamic,)).module()
    recipe = x86.get_default_x86_inductor_quantization_config(reduce_range=saturates("onednn"))
    observed = prepare_pt2e(exported, x86.X86InductorQuantizer().set_global(recipe))
    with torch.no_grad():
        for sample in network.samples:
            observed(sample)
    converted: torch.nn.Module = convert_pt2e(observed)
    return converted


def inductor_int8(network: Network, setting: Setting) -> torch.nn.Module:
    """Compile what torchao quantized."""
    return compiled(pt2e_graph(network), network.images(setting))


@functools.cache
def qgate_file(network: Network, backend: str, size: int) -> Path:
    """Export the network as qgate does for a runtime, for square images of a size."""
    images = network.images(Setting(threads=1, size=size, batch=1))
    path = network.folder / f"qgate-{backend}-{size}.onnx"
    path.write_bytes(OnnxExporter().export(copy.deepcopy(reference_graph(network, backend)), (images,), {}))
    return path


AXES = {"batch": 0, "height": 2, "width": 3}


@functools.cache
def onnx_file(network: Network) -> Path:
    """Export the network for images of any size."""
    import onnx  # noqa: F401  # torch asks for it only after it has exported

    path = network.folder / "float32.onnx"
    axes = {"images": {axis: name for name, axis in AXES.items()}}
    torch.onnx.export(
        network.module, (network.samples[0],), path, input_names=["images"], dynamic_axes=axes, dynamo=False
    )
    return path


class _Reader:
    """The calibration samples, as ONNX Runtime asks for them."""

    def __init__(self, samples: tuple[torch.Tensor, ...]) -> None:
        self.left: Iterator[torch.Tensor] = iter(samples)

    def get_next(self) -> dict[str, Any] | None:
        sample = next(self.left, None)
        return None if sample is None else {"images": sample.numpy()}


@functools.cache
def onnx_int8_file(network: Network) -> Path:
    """Quantize by ONNX Runtime's own tool, with the types that its documents advise for x86."""
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    source, prepared, path = onnx_file(network), network.folder / "prepared.onnx", network.folder / "int8.onnx"
    quant_pre_process(source, prepared, skip_symbolic_shape=True)  # it cannot follow a Resize of any size
    quantize_static(
        prepared,
        path,
        _Reader(network.samples),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        reduce_range=saturates("onednn"),
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
    )
    return path


class OnnxRuntime(torch.nn.Module):
    """A session that reads torch's memory and writes into the same buffers every time."""

    def __init__(self, model: Path, setting: Setting) -> None:
        import onnxruntime

        super().__init__()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = setting.threads, 1
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        for name, length in zip(AXES, (setting.batch, setting.size, setting.size), strict=True):
            options.add_free_dimension_override_by_name(name, length)
        self.session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        self.input = self.session.get_inputs()[0].name
        self.binding = self.session.io_binding()
        self.outputs: list[torch.Tensor] = []

    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        """Run one batch."""
        self.binding.bind_cpu_input(self.input, images.numpy())
        if not self.outputs:
            self._bind_outputs()
        self.session.run_with_iobinding(self.binding)
        return self.outputs

    def _bind_outputs(self) -> None:
        """Learn the outputs' shapes from a first run, and bind buffers of them."""
        names = [output.name for output in self.session.get_outputs()]
        for name in names:
            self.binding.bind_output(name)
        self.session.run_with_iobinding(self.binding)
        self.outputs = [torch.from_numpy(value.numpy()).clone() for value in self.binding.get_outputs()]
        self.binding.clear_binding_outputs()
        for name, value in zip(names, self.outputs, strict=True):
            self.binding.bind_output(name, "cpu", 0, np.float32, list(value.shape), value.data_ptr())


def onnx_float(network: Network, setting: Setting) -> torch.nn.Module:
    """Run the float32 network in ONNX Runtime."""
    return OnnxRuntime(onnx_file(network), setting)


def onnx_int8(network: Network, setting: Setting) -> torch.nn.Module:
    """Run the network that ONNX Runtime quantized."""
    return OnnxRuntime(onnx_int8_file(network), setting)


def onnx_qgate(network: Network, setting: Setting) -> torch.nn.Module:
    """Run the file that qgate exports for the backend `onnxruntime`."""
    return OnnxRuntime(qgate_file(network, "onnxruntime", setting.size), setting)


@functools.cache
def openvino_model(network: Network) -> Any:
    """Convert the network for images of any size."""
    import openvino

    return openvino.convert_model(network.module, example_input=network.samples[0])


@functools.cache
def nncf_model(network: Network, preset: str) -> Any:
    """Quantize by NNCF. Its documents advise the preset `mixed` where activations, as SiLU's, are not symmetric."""
    import nncf

    samples = nncf.Dataset([sample.numpy() for sample in network.samples])
    chosen = nncf.QuantizationPreset(preset)
    return nncf.quantize(openvino_model(network), samples, preset=chosen, subset_size=len(network.samples))


def with_bytes(model: Any, byte_scale: float) -> Any:
    """Let a model take decoded images (N, H, W, C), by preprocessing that OpenVINO compiles with it."""
    from openvino import Layout, Type
    from openvino.preprocess import PrePostProcessor

    steps = PrePostProcessor(model)
    steps.input().tensor().set_element_type(Type.u8).set_layout(Layout("NHWC"))
    steps.input().model().set_layout(Layout("NCHW"))
    steps.input().preprocess().convert_element_type(Type.f32).scale(1 / byte_scale)
    return steps.build()


def openvino_request(model: Any, setting: Setting, precision: str, byte_scale: float | None = None) -> Any:
    """Compile for the latency of one batch; `precision` is that of what is not int8. Raises `UnavailableError`."""
    import openvino

    core = openvino.Core()
    if precision == "bf16" and "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        raise UnavailableError("this CPU has no bf16 instructions")
    model = model.clone()
    model.reshape([setting.batch, model.input(0).partial_shape[1].get_length(), setting.size, setting.size])
    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": setting.threads,
        "NUM_STREAMS": 1,
        "INFERENCE_PRECISION_HINT": precision,
    }
    model = with_bytes(model, byte_scale) if byte_scale else model
    return core.compile_model(model, "CPU", settings).create_infer_request()


class OpenVino(torch.nn.Module):
    """A compiled model that reads torch's memory and writes into the same buffers every time."""

    def __init__(self, request: Any) -> None:
        super().__init__()
        self.request = request

    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        """Run one batch; bytes have their channels last already."""
        given = images.permute(0, 2, 3, 1) if images.dtype == torch.uint8 else images
        results = self.request.infer({0: given.numpy()}, share_inputs=True, share_outputs=True)
        return [torch.from_numpy(value) for value in results.values()]


def openvino_float(network: Network, setting: Setting, precision: str) -> torch.nn.Module:
    """Run the network in OpenVINO, in float32 or bf16."""
    return OpenVino(openvino_request(openvino_model(network), setting, precision))


def openvino_int8(network: Network, setting: Setting, preset: str, precision: str = "f32") -> torch.nn.Module:
    """Run the network that NNCF quantized."""
    return OpenVino(openvino_request(nncf_model(network, preset), setting, precision))


def openvino_qgate(network: Network, setting: Setting) -> torch.nn.Module:
    """Run the file that qgate exports for the backend `openvino`."""
    import openvino

    model = openvino.Core().read_model(qgate_file(network, "openvino", setting.size))
    return OpenVino(openvino_request(model, setting, "f32"))


def openvino_bytes(network: Network, setting: Setting) -> torch.nn.Module:
    """Run it on bytes."""
    byte_scale = network.inputs.loaded.byte_scale
    return OpenVino(openvino_request(nncf_model(network, "mixed"), setting, "f32", byte_scale))


FUSED = ("torch int8 fused", "torch int8 fused, uint8 in")
# The baseline is the fastest of these, as in `baseline_form = "fastest"`.
TORCH_FLOATS = {
    "torch float32 eager": Form(functools.partial(torch_float, name="eager")),
    "torch float32 channels_last": Form(functools.partial(torch_float, name="channels_last"), as_channels_last),
    "torch float32 frozen": Form(functools.partial(torch_float, name="frozen"), as_channels_last),
}
PEERS = {
    "torch float32 Inductor": Form(inductor_float),
    "torch int8 PT2E, Inductor": Form(inductor_int8),
    "onnxruntime float32": Form(onnx_float),
    "onnxruntime int8": Form(onnx_int8),
    "onnxruntime int8, qgate's file": Form(onnx_qgate),
    "openvino float32": Form(functools.partial(openvino_float, precision="f32")),
    "openvino bf16": Form(functools.partial(openvino_float, precision="bf16")),
    "openvino int8, default": Form(functools.partial(openvino_int8, preset="performance")),
    "openvino int8, mixed": Form(functools.partial(openvino_int8, preset="mixed")),
    "openvino int8, qgate's file": Form(openvino_qgate),
    "openvino int8, mixed, uint8 in": Form(openvino_bytes, as_bytes),
    "openvino int8, mixed, bf16": Form(functools.partial(openvino_int8, preset="mixed", precision="bf16")),
}
FORMS = {
    **TORCH_FLOATS,
    "torch int8 fbgemm": Form(functools.partial(qgate_int8, backend="fbgemm"), as_channels_last),
    "torch int8 x86": Form(functools.partial(qgate_int8, backend="x86"), as_channels_last),
    "torch int8 onednn": Form(functools.partial(qgate_int8, backend="onednn"), as_channels_last),
    FUSED[0]: Form(functools.partial(qgate_int8, backend="fused"), as_channels_last),
    FUSED[1]: Form(functools.partial(qgate_int8, backend="fused"), as_bytes),
    **PEERS,
}
