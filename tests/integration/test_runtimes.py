"""One toy model, three candidates for it: kernels of torch, ONNX Runtime and OpenVINO, gated side by side."""

from __future__ import annotations

import hashlib
import importlib
import json
import sys
from typing import TYPE_CHECKING, Any

import onnx
import onnxruntime
import pytest
import torch
from command_line import Outcome, as_process, in_process
from torch import fx
from toy_project import HELD, SPEED, Folder

from qgate_onnx.exporter import OnnxExporter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    Qgate = Callable[..., Outcome]

CANDIDATES = ("fused", "onnxruntime", "openvino")
SIZE = "[models.toy.thresholds.size_reduction]\nlower_bound = -9\n"  # of so small a model, names and nodes are the most


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> tuple[Folder, Outcome]:
    """The project after one run. Not to be written to."""
    folder = Folder(tmp_path_factory.mktemp("runtimes"))
    folder.configure(HELD, SPEED, SIZE, models=CANDIDATES)
    text = folder.text("qgate.toml")
    for name in CANDIDATES:
        table = f"[models.{name}.quantization]\n"
        text = text.replace(table, f'{table}backend = "{name}"\n')
    folder.write("qgate.toml", text)
    return folder, as_process(folder.root, "check")


@pytest.fixture
def project(judged: tuple[Folder, Outcome], monkeypatch: pytest.MonkeyPatch) -> Iterator[Folder]:
    monkeypatch.chdir(judged[0].root)
    path = sys.path.copy()
    yield judged[0]
    sys.path[:] = path
    sys.modules.pop("toy", None)


@pytest.fixture
def qgate(capsys: pytest.CaptureFixture[str]) -> Qgate:
    return in_process(capsys)


def test_all_three_are_judged_and_pass(judged: tuple[Folder, Outcome]) -> None:
    folder, outcome = judged

    assert outcome.code == 0, outcome
    for name in CANDIDATES:
        found = folder.results()["models"][name]
        assert {verdict["status"] for verdict in found["verdicts"]} == {"passed"}
        assert {"accuracy", "size_reduction", "speedup"} <= found["metrics"].keys()


@pytest.mark.parametrize("name", CANDIDATES)
def test_what_is_sized_is_the_file_that_ships(judged: tuple[Folder, Outcome], name: str) -> None:
    folder, _ = judged
    found = folder.results()["models"][name]

    content = (folder.root / found["artifact"]["path"]).read_bytes()
    suffix = ".pt" if name == "fused" else ".onnx"
    assert found["artifact"]["path"] == f".qgate/artifacts/{name}{suffix}"
    assert found["artifact"]["sha256"] == hashlib.sha256(content).hexdigest()
    assert found["metrics"]["size_reduction"]["candidate"] == found["artifact"]["bytes"] == len(content)


def test_float32_is_evaluated_once(judged: tuple[Folder, Outcome]) -> None:
    models = judged[0].results()["models"]

    assert "float32 predictions" not in models["fused"]["cached"]
    assert all("float32 predictions" in models[name]["cached"] for name in ("onnxruntime", "openvino"))


@pytest.mark.parametrize("form", [(), ("--format", "markdown")], ids=["console", "markdown"])
def test_the_report_shows_them_side_by_side(project: Folder, qgate: Qgate, form: tuple[str, ...]) -> None:
    models = project.results()["models"]

    lines = qgate("report", *form).out.splitlines()

    (begin,) = (
        place
        for place, line in enumerate(lines)
        if line.lower().startswith("side by side, with the same float32 on the same data")
    )
    rows = [line.replace("|", " ").split() for line in lines[begin + 1 : begin + 9]]
    table = {row[0]: row for row in rows if row}
    assert table["float32"][1] == f"{models['fused']['metrics']['accuracy']['baseline']:.4f}"
    for name in CANDIDATES:
        metrics = models[name]["metrics"]
        expected = (
            f"{metrics['accuracy']['candidate']:.4f}",
            f"{metrics['size_reduction']['candidate'] / 1e6:.2f}",
            f"{metrics['speedup']['value']:.2f}x",
            "passed",
        )
        assert all(cell in table[name] for cell in expected)


def test_models_of_other_data_or_weights_are_not_compared(
    judged: tuple[Folder, Outcome], tmp_path: Path, qgate: Qgate, monkeypatch: pytest.MonkeyPatch
) -> None:
    document: Any = judged[0].results()
    document["models"]["fused"]["conditions"]["data_sha256"] = "other data"
    document["models"]["openvino"]["metrics"]["size_reduction"]["baseline"] += 4  # other weights
    folder = Folder(tmp_path)
    folder.write(".qgate/results.json", json.dumps(document))
    monkeypatch.chdir(tmp_path)

    assert "side by side" not in qgate("report").out


def test_the_exported_file_is_what_was_judged_and_runs_without_qgate(project: Folder, qgate: Qgate) -> None:
    outcome = qgate("export", "--model", "onnxruntime", "--format", "onnx", "--output", "out/toy.onnx")

    content = (project.root / "out" / "toy.onnx").read_bytes()
    assert outcome.code == 0, outcome
    assert outcome.out == f"wrote out/toy.onnx: {len(content)} bytes, sha256 {hashlib.sha256(content).hexdigest()}\n"
    images = torch.rand(5, 3, 8, 8)
    judged = (project.root / ".qgate" / "artifacts" / "onnxruntime.onnx").read_bytes()
    one, other = (
        onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"]).run(None, {"image": images.numpy()})[0]
        for file in (content, judged)
    )
    assert one.shape == (5, 4)
    assert (one == other).all()
    said = {entry.key: entry.value for entry in onnx.load_model_from_string(content).metadata_props}
    assert json.loads(said["quantization"])["backend"] == "onnxruntime"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (
            ("--format", "torchscript", "-o", "x.pt"),
            'x.pt: format torchscript: the kernels of backend "fused" are not torch\'s own; name one of fbgemm, ',
        ),
        (("--format", "onnx", "-o", "x.pt"), 'x.pt: expected a name that ends in ".onnx" for format "onnx"; name '),
        (("--format", "onxx", "-o", "x.onnx"), 'unknown exporter "onxx"; did you mean "onnx"?'),
    ],
    ids=["kernels", "suffix", "unknown"],
)
def test_what_cannot_be_exported_is_said_in_one_line(
    project: Folder, qgate: Qgate, arguments: tuple[str, ...], expected: str
) -> None:
    outcome = qgate("export", "--model", "fused", *arguments)

    assert outcome.code == 4, outcome
    assert outcome.err.splitlines()[-1].startswith(f"qgate: error: {expected}")
    assert not (project.root / "x.pt").exists()


def test_accuracy_is_explained_for_a_runtime_and_time_is_refused(project: Folder, qgate: Qgate) -> None:
    explained = qgate("explain", "onnxruntime", "--accuracy")
    refused = qgate("explain", "onnxruntime")

    assert explained.code == 0, explained
    assert "first" in explained.out
    assert 'backend "onnxruntime" has no lower_graph' in refused.error


AS_ONNX = """
schema_version = 1

[models.toy]
loader = "onnx"
weights = "toy.onnx"
input_shapes = [[1, 3, 8, 8]]
postprocess = "toy:scores"
class_names = ["a", "b", "c", "d"]

[models.toy.data]
format = "factory"
calibration = { factory = "toy:data", num_samples = 8 }
evaluation = { factory = "toy:data" }

[models.toy.quantization]
backend = "onnxruntime"

[models.toy.thresholds.accuracy]
max_drop = 0.9
lower_bound = 0.1
"""


def test_a_model_given_as_onnx_is_gated_like_any_other(
    tmp_path: Path, qgate: Qgate, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Folder(tmp_path)
    folder.write("toy.py", folder.text("toy.py") + "\n\ndef scores(output, _context):\n    return output.softmax(1)\n")
    folder.write("qgate.toml", AS_ONNX)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    module, image = importlib.import_module("toy").model()
    traced = fx.symbolic_trace(module.eval())
    (tmp_path / "toy.onnx").write_bytes(OnnxExporter().export(traced, (image,), {}))

    outcome = qgate("check")
    sys.modules.pop("toy", None)

    assert outcome.code == 0, outcome
    found = folder.results()["models"]["toy"]
    assert found["metrics"]["accuracy"]["baseline"] == 1.0  # its own predictions are the labels
    assert found["artifact"]["path"] == ".qgate/artifacts/toy.onnx"
