"""The gate with `approach = "qat"`: trained, compared with what it is without training, cached, resumed, shared."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from command_line import in_process
from toy_project import Folder

from qgate import load_artifact
from qgate.engine.artifact import content_sha256, read_header

if TYPE_CHECKING:
    from collections.abc import Callable

    from command_line import Outcome

ROOT = Path(__file__).parents[2]
TOGETHER = ("torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "qgate", "check")

# One channel is forty times as great as others, so that one scale for all weights is bad; it is as good in float32.
MODEL = """
import os
import time
from dataclasses import replace

import torch
from torch import nn
import qgate
from qgate.protocols import LoadedModel


class Toy(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 16, 3, padding=1)
        self.relu = nn.ReLU()
        self.second = nn.Conv2d(16, 16, 3, padding=1)
        self.head = nn.Linear(16, 4)

    def forward(self, image):
        hidden = self.relu(self.second(self.relu(self.first(image))))
        return self.head(hidden.mean((2, 3)))


def distance(student, teacher):
    time.sleep(0.02)  # so that there is time to kill it
    return 10 * (student - teacher).square().mean()  # of halves of a batch it is the mean of theirs


def model():
    torch.manual_seed(0)
    toy = Toy().eval()
    with torch.no_grad():
        toy.first.weight[:4] *= 40
        toy.second.weight[:, :4] /= 40
        toy.first.bias[:4] *= 40
        toy.head.weight *= 100
    return LoadedModel(toy, (torch.rand(1, 3, 8, 8),), distillation_loss=distance)


def drawn(count, seed):
    images = torch.rand(count, 3, 8, 8, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        outputs = model().module(images)
    return [(image, int(output.argmax())) for image, output in zip(images, outputs - outputs.mean(0))]


def train():
    return drawn(64, 1)


def judged():
    return drawn(64, 2)


def nothing():
    return []


def one():
    return drawn(1, 1)


def frozen():
    loaded = model()
    loaded.module.requires_grad_(False)
    return loaded


def failing(student, teacher):
    if os.environ["RANK"] == "1" and student.requires_grad:
        raise OSError("a disk is gone")
    return (student - teacher).square().mean()


def failing_in_one():
    return replace(model(), distillation_loss=failing)


def failing_in_both():
    return replace(model(), distillation_loss=lambda student, _: student.sum() * torch.nan)
"""
PLUGIN = """
import os
import pathlib

import qgate

replace = pathlib.Path.replace


def noted(self, target):
    with open(pathlib.Path(__file__).with_name("written.txt"), "a") as notes:
        notes.write(os.environ.get("RANK", "0") + "\\n")
    return replace(self, target)


pathlib.Path.replace = noted


class Closeness(qgate.MeanMetric):
    name = "closeness"
    compares_with = "float32"

    def score(self, prediction, target):
        return 1 - float((prediction - target).abs().mean())


@qgate.hookimpl
def qgate_register_metrics():
    return [Closeness]
"""
CONFIG = """
schema_version = 1

[models.toy]
loader = "factory"
factory = "outlying:model"

[models.toy.data]
format = "factory"
calibration = { factory = "outlying:train", num_samples = 16 }
evaluation = { factory = "outlying:judged" }
train = { factory = "outlying:train" }

[models.toy.quantization]
approach = "qat"
weight = { observer = "per_tensor_minmax" }
bias_correction = false

[models.toy.quantization.training]
epochs = 6
learning_rate = 0.001

[models.toy.thresholds.closeness]
max_drop = 0.5
"""


@pytest.fixture
def project(tmp_path: Path) -> Folder:
    return make_project(tmp_path / "project")


def make_project(folder: Path, config: str = CONFIG) -> Folder:
    folder.mkdir()
    made = Folder(folder, written=True)
    for name, text in {"outlying.py": MODEL, "conftest.py": PLUGIN, "qgate.toml": config}.items():
        made.write(name, text)
    return made


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Outcome]:
    monkeypatch.setattr(Path, "replace", Path.replace)  # the plugin's is taken back
    return in_process(capsys)


def as_process(folder: Path, *command: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'plugins'}", "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", *(command or ("qgate", "check"))],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def weights_of(folder: Path) -> str:
    return content_sha256(folder / ".qgate/artifacts/toy.pt")


def test_the_gate_trains_and_says_what_that_bought(project: Folder, run: Callable[..., Outcome]) -> None:
    first = run("check", "--config", project.root / "qgate.toml")

    toy = project.results()["models"]["toy"]
    ptq, figures = toy["metrics"]["closeness"]["ptq"], toy["metrics"]["closeness"]
    assert first.code == 0, first.err
    assert ptq["gain"] == pytest.approx(figures["candidate"] - ptq["value"])
    assert ptq["gain"] > 0.3 * ptq["drop"] > 0
    assert 0 < ptq["gain_interval"][0] < ptq["gain"] < ptq["gain_interval"][1]
    assert [epoch["epoch"] for epoch in toy["training"]["curve"]] == list(range(7))
    assert "epoch 6 of 6: loss" in first.err
    assert first.err.count("calibrate (16)") == 1, "for both, with and without training"
    assert "min left" in first.err
    for said in ("curve: validation loss by epoch: 0:", "closeness", "without training", "gained +"):
        assert said in first.out
    assert 'approach = "ptq" is enough' in " ".join(first.out.split())

    again = run("check", "--config", project.root / "qgate.toml")
    assert "trained int8 graph" in project.results()["models"]["toy"]["cached"]
    assert project.results()["models"]["toy"]["training"]["curve"] == toy["training"]["curve"]
    assert "epoch 6" not in again.err
    assert not list((project.root / ".qgate").rglob("*.checkpoint"))


def test_what_is_judged_is_the_converted_graph_as_reloaded(project: Folder, run: Callable[..., Outcome]) -> None:
    run("check", "--config", project.root / "qgate.toml")

    path = project.root / ".qgate/artifacts/toy.pt"
    int8 = load_artifact(path)
    sys.modules.pop("outlying", None)
    sys.path.insert(0, str(project.root))
    try:
        import outlying  # type: ignore[import-not-found]
    finally:
        sys.path.remove(str(project.root))
    float32 = outlying.model().module
    with torch.inference_mode():
        differences = [(int8(image[None]) - float32(image[None])).abs().mean() for image, _ in outlying.judged()]
    value = 1 - float(torch.stack(differences).mean())
    assert project.results()["models"]["toy"]["metrics"]["closeness"]["candidate"] == pytest.approx(value, abs=2e-3)
    assert read_header(path)["quantization"]["approach"] == "qat"
    assert read_header(path)["quantization"]["training"]["epochs"] == 6


@pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX's")
def test_an_interrupted_training_comes_to_the_same_weights(tmp_path: Path) -> None:
    folders = {name: make_project(tmp_path / name).root for name in ("whole", "SIGINT", "SIGKILL")}
    processes = {name: as_process(folder) for name, folder in folders.items()}
    for name in ("SIGINT", "SIGKILL"):
        stderr: Any = processes[name].stderr
        assert any("epoch 2 of 6" in line for line in stderr)
        time.sleep(0.05)
        processes[name].send_signal(getattr(signal, name))
    for process in processes.values():
        process.communicate(timeout=120)
    codes = {name: process.returncode for name, process in processes.items()}
    assert codes == {"whole": 0, "SIGINT": 130, "SIGKILL": -signal.SIGKILL}
    for name in ("SIGINT", "SIGKILL"):
        assert (folders[name] / ".qgate/artifacts/toy.checkpoint").exists()
        assert not (folders[name] / ".qgate/results.json").exists()

    again = {name: as_process(folders[name]) for name in ("SIGINT", "SIGKILL")}
    for name, process in again.items():
        _, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
        assert "epoch 2 of 6" not in err
        assert weights_of(folders[name]) == weights_of(folders["whole"])
        results = json.loads((folders[name] / ".qgate/results.json").read_text())
        assert results["models"]["toy"]["training"]["resumed_after"] >= 2


def in_one_process_and_in_two(tmp_path: Path, config: str) -> list[dict[str, Any]]:
    """Give the results of both."""
    folders = {name: make_project(tmp_path / name, config).root for name in ("one", "two")}
    processes = [as_process(folders["one"]), as_process(folders["two"], *TOGETHER)]
    for process in processes:
        _, err = process.communicate(timeout=180)
        assert process.returncode == 0, err
    return [json.loads((folder / ".qgate/results.json").read_text())["models"]["toy"] for folder in folders.values()]


def losses(result: dict[str, Any]) -> list[float]:
    return [epoch["validation_loss"] for epoch in result["training"]["curve"]]


def test_two_processes_train_as_one_does_and_one_of_them_writes(tmp_path: Path) -> None:
    one, two = in_one_process_and_in_two(tmp_path, CONFIG)

    assert (one["training"]["processes"], two["training"]["processes"]) == (1, 2)
    assert losses(two)[0] == pytest.approx(losses(one)[0], rel=1e-5)
    assert min(losses(two)) < 0.3 * losses(two)[0]
    assert min(losses(one)) < 0.3 * losses(one)[0]
    one, two = (result["metrics"]["closeness"]["ptq"] for result in (one, two))
    assert two["value"] == one["value"]
    assert two["gain"] == pytest.approx(one["gain"], rel=0.1)
    assert set((tmp_path / "two" / "written.txt").read_text().split()) == {"0"}


def test_two_processes_start_from_the_same_corrected_biases(tmp_path: Path) -> None:
    corrected = CONFIG.replace("bias_correction = false\n", "").replace("epochs = 6", "epochs = 1")
    one, two = in_one_process_and_in_two(tmp_path, corrected)

    assert one["quantization"]["bias_correction"]
    assert losses(two)[0] == pytest.approx(losses(one)[0], rel=1e-5)
    assert losses(two)[1] == pytest.approx(losses(one)[1], rel=0.2)  # sums in another order round otherwise


def test_a_training_that_fails_in_one_process_or_in_both_costs_no_other_model(tmp_path: Path) -> None:
    header, table = CONFIG.replace("epochs = 6", "epochs = 1").split("[models.toy]")
    tables = [
        f"[models.toy]{table}".replace("models.toy", f"models.{name}").replace("outlying:model", f"outlying:{factory}")
        for name, factory in (("one", "failing_in_one"), ("both", "failing_in_both"), ("toy", "model"))
    ]
    project = make_project(tmp_path / "project", header + "\n".join(tables))
    process = as_process(project.root, *TOGETHER)

    _, err = process.communicate(timeout=120)

    assert process.returncode == 1, err
    one, both, toy = (project.results()["models"][name] for name in ("one", "both", "toy"))
    assert "process 1: distillation_loss failed: OSError: a disk is gone" in one["verdicts"][0]["message"]
    assert "the training's loss is nan (validation)" in both["verdicts"][0]["message"]
    assert toy["training"]["processes"] == 2
    assert [verdict["status"] for verdict in toy["verdicts"]] == ["passed"]


MISTAKES = {
    "no training data": (
        ('train = { factory = "outlying:train" }\n', ""),
        'qgate.toml:14: [models.toy.quantization] approach = "qat" needs data to train on: '
        "add train = { ... } to [models.X.data]",
    ),
    "empty": (
        ('train = { factory = "outlying:train" }', 'train = { factory = "outlying:nothing" }'),
        "qgate.toml:12: the training data is empty",
    ),
    "supervised": (
        ("epochs = 6", 'loss = "supervised"'),
        'qgate.toml:19: [models.toy.quantization.training] loss = "supervised", but loader "factory" gives no '
        'supervised_loss; use "distillation", which needs none',
    ),
    "augment": (
        ("epochs = 6", "augment = { mosaic = 0.5 }"),
        'qgate.toml:20: [models.toy.quantization.training] loader "factory" has no options for "augment"',
    ),
    "unknown": (
        ("epochs = 6", "epoch = 6"),
        'qgate.toml:20: [models.toy.quantization.training] unknown key "epoch"; did you mean "epochs"?',
    ),
    "bounds": (
        ("epochs = 6", "epochs = 0"),
        "qgate.toml:20: [models.toy.quantization.training] epochs: must be at least 1, got 0",
    ),
    "corrections": (
        ('approach = "qat"', 'approach = "qat"\nweight_rounding = "gptq"'),
        'qgate.toml:16: [models.toy.quantization] weight_rounding is for approach = "ptq": training does its work; '
        "remove it",
    ),
    "one sample": (
        ('train = { factory = "outlying:train" }', 'train = { factory = "outlying:one" }'),
        "qgate.toml:12: of 1 training samples 0 are evaluation samples, by content; training needs 2 others at least",
    ),
    "feature maps": (
        ("epochs = 6", 'feature_maps = ["secondd"]'),
        'qgate.toml:19: feature_maps pattern "secondd" matches no module; the nearest module name is "second"',
    ),
    "frozen": (
        ("outlying:model", "outlying:frozen"),
        'qgate.toml:19: the model has no parameter that could be trained; quantize it with approach = "ptq"',
    ),
    "cuda": (
        ("epochs = 6", 'device = "cuda"'),
        'qgate.toml:19: [models.toy.quantization.training] device = "cuda", but torch finds no GPU here; use "auto"',
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line(mistake: str, tmp_path: Path, run: Callable[..., Outcome]) -> None:
    (before, after), message = MISTAKES[mistake]
    if mistake == "cuda" and torch.cuda.is_available():
        pytest.skip("there is a GPU")
    project = make_project(tmp_path / "project", CONFIG.replace(before, after))

    assert run("check", "--config", project.root / "qgate.toml").error == f"{project.root}/{message}"


def test_training_data_that_is_judged_by_is_an_error_of_the_limits(tmp_path: Path, run: Callable[..., Outcome]) -> None:
    project = make_project(tmp_path / "project", CONFIG.replace('outlying:train" }', 'outlying:judged" }'))

    outcome = run("check", "--config", project.root / "qgate.toml")

    assert outcome.code == 1
    (verdict,) = project.results()["models"]["toy"]["verdicts"]
    assert verdict["status"] == "error"
    assert "of 64 training samples 64 are evaluation samples, by content" in verdict["message"]
