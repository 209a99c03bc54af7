from __future__ import annotations

import importlib.util
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
import torch
from onnx_forms import SHAPE, drawn, traced
from small_networks import NETWORKS, Network, conv_bn_silu, reference
from torch import nn

from qgate.engine.artifact import artifact_bytes, edited_bytes, load_artifact, write_artifact
from qgate.engine.shipping import exported_file, load_shipped, ship
from qgate.errors import ArtifactError
from qgate.plugins import load_registry
from qgate.quantization.corrections.bias import biases_of
from qgate.quantization.corrections.correct import correct
from qgate.quantization.prepare import quiet_torch_ao
from qgate_onnx import runtimes
from qgate_onnx.refine import leave_out_repeated, quantize_sigmoids

if TYPE_CHECKING:
    from pathlib import Path

RUNTIMES = ("onnxruntime", "openvino")


def backend_of(name: str) -> Any:
    return load_registry().backends.get(name)()


def artifact(folder: Path, runtime: str) -> tuple[Path, Network]:
    """Write the artifact of a small network."""
    network, backend = NETWORKS["residual"], backend_of(runtime)
    graph = backend.refine(reference(network, backend, float_outputs=getattr(backend, "float_outputs", False)))
    header = {"quantization": {"backend": runtime, "reduce_range": True}, "environment": {"cpu": "a test's"}}
    path = folder / "small.net.pt"
    write_artifact(path, artifact_bytes(graph, network.inputs(), header))
    return path, network


class Broken:
    name = "broken"
    suffix = ".broken"

    def export(self, *_: Any) -> bytes:
        raise ValueError("nothing\nof it")


def test_what_an_exporter_raises_is_one_line_that_names_its_format(tmp_path: Path) -> None:
    path, _ = artifact(tmp_path, "onnxruntime")
    exporter: Any = Broken()

    with pytest.raises(ArtifactError) as caught:
        exported_file(path, exporter, tmp_path / "small.broken")

    expected = f"{tmp_path / 'small.broken'}: format broken cannot be written: ValueError: nothing of it ({__file__}:"
    assert str(caught.value).startswith(expected)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_the_file_that_ships_is_what_is_loaded(runtime: str, tmp_path: Path) -> None:
    path, network = artifact(tmp_path, runtime)

    shipped = ship(path, load_registry())

    onnx_file = tmp_path / "small.net.onnx"
    assert shipped is not None
    assert (shipped.path, shipped.bytes) == (str(onnx_file), onnx_file.stat().st_size)
    loaded = load_shipped(path, load_registry())(*network.inputs())
    assert torch.equal(loaded, load_artifact(path)(*network.inputs()))
    onnx_file.write_bytes(b"something")
    with pytest.raises(ArtifactError, match=rf"small\.net\.onnx: cannot be run by {runtime}: "):
        load_shipped(path, load_registry())
    onnx_file.unlink()
    with pytest.raises(ArtifactError, match=r"small\.net\.onnx: cannot be read: No such file"):
        load_shipped(path, load_registry())


def test_a_fault_in_the_artifact_is_in_the_file_that_ships(tmp_path: Path) -> None:
    path, network = artifact(tmp_path, "onnxruntime")
    ship(path, load_registry())
    sound = load_shipped(path, load_registry())(*network.inputs())

    write_artifact(path, edited_bytes(path, _ten_times))
    ship(path, load_registry())

    assert not torch.allclose(load_shipped(path, load_registry())(*network.inputs()), sound, rtol=0.1)


def _ten_times(tensors: dict[str, torch.Tensor]) -> None:
    for name, value in tensors.items():
        if name.endswith("weight_scale"):
            value.mul_(10)


def test_an_artifact_of_torchs_own_kernels_ships_itself(tmp_path: Path) -> None:
    network = NETWORKS["residual"]
    header = {"quantization": {"backend": "fbgemm", "reduce_range": True}, "environment": {"cpu": "a test's"}}
    path = tmp_path / "small.pt"
    write_artifact(path, artifact_bytes(reference(network), network.inputs(), header))

    assert ship(path, load_registry()) is None
    assert [file.name for file in tmp_path.iterdir()] == ["small.pt"]


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_any_batch_runs_and_each_sample_gets_the_same_result(runtime: str) -> None:
    network, backend = NETWORKS["residual"], backend_of(runtime)
    module = backend.lower(backend.refine(reference(network, backend)), network.inputs())
    samples = [network.inputs(seed)[0] for seed in range(1, 5)]

    together = module(torch.cat(samples))

    assert torch.equal(together, torch.cat([module(sample) for sample in samples]))


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_it_may_be_called_from_several_threads_and_outputs_are_the_callers_own(runtime: str) -> None:
    network, backend = NETWORKS["residual"], backend_of(runtime)
    module = backend.lower(backend.refine(reference(network, backend)), network.inputs())
    inputs = [network.inputs(seed)[0] for seed in range(24)]
    expected = [module(image).clone() for image in inputs]

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(module, inputs))

    assert all(torch.equal(*pair) for pair in zip(found, expected, strict=True))


def test_threads_are_as_many_as_torch_has(monkeypatch: pytest.MonkeyPatch) -> None:
    network = NETWORKS["residual"]
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    modules = {}
    for runtime in RUNTIMES:
        backend = backend_of(runtime)
        modules[runtime] = backend.lower(reference(network, backend), network.inputs())
        modules[runtime](*network.inputs())

    options = modules["onnxruntime"].session.get_session_options()
    (compiled,) = modules["openvino"].compiled.values()
    assert options.intra_op_num_threads == 2
    assert compiled.get_property("INFERENCE_NUM_THREADS") == 2


WITHOUT_EXTRAS = """
import sys
sys.modules.update(onnx=None, onnxruntime=None, openvino=None)
from qgate.plugins import load_registry
registry = load_registry()
for kind in (registry.exporters.get("onnx"), registry.backends.get("onnxruntime"), registry.backends.get("openvino")):
    print(kind().is_available())
"""


def test_without_the_extras_everything_is_registered_and_says_what_to_install() -> None:
    done = subprocess.run([sys.executable, "-c", WITHOUT_EXTRAS], capture_output=True, text=True, check=True)

    assert done.stdout.splitlines() == [
        "needs the package onnx: pip install 'pytest-qgate[onnx]'",
        "needs the package onnx and onnxruntime: pip install 'pytest-qgate[onnx]'",
        "needs the package onnx and openvino: pip install 'pytest-qgate[openvino]'",
    ]


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_missing_package_is_named_with_what_installs_it(runtime: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(runtimes, "find_spec", lambda name: None if name == runtime else found(name))

    extra = {"onnxruntime": "onnx", "openvino": "openvino"}[runtime]
    assert backend_of(runtime).is_available() == f"needs the package {runtime}: pip install 'pytest-qgate[{extra}]'"


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_the_range_is_reduced_exactly_where_kernels_saturate(runtime: str, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = backend_of(runtime)
    truth = backend.needs_reduced_range()  # of this machine; kernels that add in 16 bits say otherwise

    class Saturating(runtimes.Runner):
        def run(self, inputs: Any) -> list[torch.Tensor]:
            return [torch.full((1,), 100, dtype=torch.uint8)]

    monkeypatch.setattr(runtimes, "_KNOWN", {})
    monkeypatch.setattr(type(backend), "read", lambda _, __: Saturating(0))
    assert backend.needs_reduced_range() is True
    assert truth in {True, False}


def quantized_activation() -> torch.fx.GraphModule:
    network = Network(lambda: nn.Sequential(conv_bn_silu(3, 8), nn.Conv2d(8, 4, 1)))
    return reference(network, backend_of("onnxruntime"))


def test_biases_before_a_written_out_silu_are_corrected_by_its_slope() -> None:
    biases = []
    for graph in (quantized_activation(), quantize_sigmoids(quantized_activation())):
        samples = [NETWORKS["residual"].inputs(seed) for seed in range(1, 5)]
        with quiet_torch_ao():
            correct(graph, samples, rounding=False, bias=True, advance=lambda: None)
        biases.append(next(iter(biases_of(graph).values())))

    assert torch.equal(*biases)


def test_a_quantized_sigmoid_changes_a_silu_by_less_than_its_own_step() -> None:
    image = NETWORKS["residual"].inputs()[0]
    plain, refined = quantized_activation(), quantize_sigmoids(quantized_activation())

    names = [node.target for node in refined.graph.nodes if node.op == "call_function"]
    assert names.count(torch.sigmoid) == 1
    assert not any(isinstance(module, nn.SiLU) for module in refined.modules())
    # x * (sigmoid(x) +- half a step of 1 / 255), then one rounding more, and 8 channels of weights below 1 behind it.
    assert 0 < float((refined(image) - plain(image)).abs().max()) < 0.05 * float(plain(image).abs().max())


def test_a_float_silu_stays_one() -> None:
    graph = quantize_sigmoids(traced(nn.Sequential(nn.SiLU())))

    assert any(isinstance(module, nn.SiLU) for module in graph.modules())


class Joined(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.left, self.right, self.pool, self.head = (
            nn.Conv2d(4, 4, 1),
            nn.Conv2d(4, 4, 1),
            nn.MaxPool2d(2),
            nn.Conv2d(8, 2, 1),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.pool(torch.cat([self.left(x), self.right(x)], 1)))


def test_what_is_quantized_already_is_not_quantized_again_and_nothing_changes() -> None:
    network = Network(Joined, SHAPE)
    plain = reference(network, backend_of("openvino"), float_outputs=True)
    lean = leave_out_repeated(reference(network, backend_of("openvino"), float_outputs=True))

    def quantizations(graph: torch.fx.GraphModule) -> int:
        return sum(node.target is torch.quantize_per_tensor for node in graph.graph.nodes)

    image = drawn(SHAPE)
    assert quantizations(plain) == 5  # the input, both layers, the concatenation, the pooling
    assert quantizations(lean) == 3
    assert torch.equal(lean(image), plain(image))
