"""`qgate explain` on the bundled example: a real network, with what its recipe keeps float."""

from __future__ import annotations

import contextlib
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from planted_faults import scaled_output
from torch import nn

from qgate.cli import main
from qgate.engine.artifact import edited_bytes, write_artifact
from qgate_yolov5.loader import YoloV5Loader

if TYPE_CHECKING:
    from collections.abc import Callable

DIGITS = Path(__file__).parents[2] / "examples" / "digits"
CONFIG = f"""
schema_version = 1

[models.digits]
loader = "yolov5"
weights = "{DIGITS}/digits.pt"
image_size = 192

[models.digits.data]
format = "coco"
calibration = {{ images = "{DIGITS}/data/train", annotations = "{DIGITS}/data/train.json", num_samples = 4 }}
evaluation = {{ images = "{DIGITS}/data/val", annotations = "{DIGITS}/data/val.json" }}

[models.digits.quantization]
backend = "BACKEND"
ignored_scope = ["model.24.*"]

[models.digits.thresholds.speedup]
lower_bound = 1.5
"""


@dataclass(frozen=True)
class Explained:
    """What the command wrote for a reader and for a machine."""

    text: str
    found: Any

    @property
    def nodes(self) -> list[tuple[str, dict[str, Any]]]:
        """List the int8 nodes, each with its layer."""
        return [(layer["layer"], node) for layer in self.found["layers"] for node in layer["nodes"]]


def run(*arguments: str) -> str:
    written = io.StringIO()
    with contextlib.redirect_stdout(written):
        assert main(arguments) == 0
    return written.getvalue()


@pytest.fixture(scope="module")
def explained(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Explained]:
    """Explain the example by a backend, quantized once, in this process."""
    kept: dict[str, Explained] = {}

    def explain(backend: str) -> Explained:
        if backend not in kept:
            folder = tmp_path_factory.mktemp(backend)
            config = folder / "qgate.toml"
            config.write_text(CONFIG.replace("BACKEND", backend), encoding="utf-8")
            artifact = str(folder / ".qgate" / "artifacts" / "digits.pt")
            run("export", "--config", str(config), "--model", "digits", "--output", artifact)
            text = run("explain", "--config", str(config))
            kept[backend] = Explained(text, json.loads(run("explain", "--config", str(config), "--json"))["digits"])
        return kept[backend]

    return explain


@pytest.fixture(scope="module")
def num_activated() -> int:
    """Count the convolutions with a SiLU behind them: all but the head's three."""
    module = YoloV5Loader().load(YoloV5Loader.Options(weights=DIGITS / "digits.pt", image_size=192)).module
    return sum(isinstance(part, nn.Conv2d) for part in module.modules()) - 3


BACKENDS = pytest.mark.parametrize("backend", ["fbgemm", "fused"])


@BACKENDS
def test_the_text_fits_and_the_layers_are_the_networks(backend: str, explained: Any) -> None:
    text, names = explained(backend).text, {layer for layer, _ in explained(backend).nodes}

    assert text.startswith(f"qgate explain: digits, backend {backend}, 1 thread, medians of ")
    assert max(map(len, text.splitlines())) <= 80
    assert "onednn_verbose" not in text
    # The network's convolutions, as the float32 checkpoint names them, are a layer each.
    assert {"model.0.conv", "model.2.m.0.cv1.conv", "model.24.m.0", "model.24.m.2"} <= names
    assert all(name.startswith(("model.", "cat in model.", "image")) for name in names)


@BACKENDS
def test_what_the_recipe_keeps_float_is_an_island_for_that_reason(backend: str, explained: Any) -> None:
    islands = [(layer, node["reason"]) for layer, node in explained(backend).nodes if is_float(node, "Conv2d")]

    assert islands == [(f"model.24.m.{level}", "in ignored_scope") for level in range(3)]
    assert "Conv2d (3, " in explained(backend).text


def is_float(node: dict[str, Any], what: str) -> bool:
    return (node["what"], node["kind"]) == (what, "float")


def test_stock_kernels_leave_every_silu_float_and_fused_ones_none(explained: Any, num_activated: int) -> None:
    islands = {
        backend: sum(is_float(node, "SiLU") for _, node in explained(backend).nodes) for backend in ("fbgemm", "fused")
    }

    assert islands == {"fbgemm": num_activated, "fused": 0}


@pytest.mark.parametrize(("backend", "engine"), [("fbgemm", "fbgemm"), ("fused", "onednn ")])
def test_every_convolution_names_the_engines_kernel(
    backend: str, engine: str, explained: Any, num_activated: int
) -> None:
    kernels = [node["kernel"] for _, node in explained(backend).nodes if node["kind"] == "kernel"]

    assert sum(kernel.startswith(engine) for kernel in kernels) == num_activated


@BACKENDS
def test_the_figures_agree_with_each_other(backend: str, explained: Any) -> None:
    found = explained(backend).found

    excess = {layer["layer"]: layer["int8"] - layer["float32"] / 1.5 for layer in found["layers"]}
    worst = sorted(excess, key=lambda name: excess[name], reverse=True)
    assert found["worst"] == [name for name in worst[:3] if excess[name] > 0]
    nodes = sum(node["seconds"] for _, node in explained(backend).nodes)
    assert sum(found["int8"].values()) == pytest.approx(nodes + found["int8"]["between"])


@pytest.mark.parametrize("layer", ["model.3.conv", "model.13.cv2.conv"])
def test_a_scale_that_is_20_times_too_great_is_the_noisiest_layers(layer: str, tmp_path: Path) -> None:
    config = tmp_path / "qgate.toml"
    config.write_text(CONFIG.replace("BACKEND", "fbgemm"), encoding="utf-8")
    artifact = tmp_path / ".qgate" / "artifacts" / "digits.pt"
    run("export", "--config", str(config), "--model", "digits", "--output", str(artifact))
    write_artifact(artifact, edited_bytes(artifact, scaled_output(layer, 20).plant))

    found = json.loads(run("explain", "--accuracy", "--json", "--config", str(config)))["digits"]

    assert found["quantized_anew"] is None
    assert found["worst"][0] == layer
    # A limit on speed alone names no metric: there is nothing to measure with a layer float.
    assert found["held_out"]["reason"].startswith("no limit names a metric that can be measured on 64 held-out ")
