"""A metric, an observer and a loader of somebody else's, by `conftest.py` and by an installed distribution."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

PLUGIN = """
from dataclasses import dataclass

import torch
import qgate


class Nearness(qgate.MeanMetric):
    name = "nearness"

    def score(self, prediction, target):
        return 1 - float((prediction - target).abs().mean())


class Widest(qgate.ActivationObserver):
    name = "widest"

    def __init__(self, *, margin: float = 0.0, **spec: int) -> None:
        super().__init__(**spec)
        self.margin = margin
        self.low, self.high = torch.tensor(torch.inf), torch.tensor(-torch.inf)

    def observe(self, x):
        self.low, self.high = torch.minimum(self.low, x.min()), torch.maximum(self.high, x.max())

    def bounds(self):
        return self.low * (1 + self.margin), self.high * (1 + self.margin)


@dataclass(frozen=True)
class Options:
    channels: int = 4


class ToyLoader:
    name = "toy"
    Options = Options

    def load(self, options):
        torch.manual_seed(0)
        module = torch.nn.Sequential(torch.nn.Conv2d(3, options.channels, 3), torch.nn.ReLU()).eval()
        return qgate.LoadedModel(module, (torch.zeros(1, 3, 8, 8),))


@qgate.hookimpl
def qgate_register_metrics():
    return [Nearness]


@qgate.hookimpl
def qgate_register_observers():
    return [Widest]


@qgate.hookimpl
def qgate_register_loaders():
    return [ToyLoader]
"""

DATA = """
import torch


def pairs():
    torch.manual_seed(1)
    torch_images = torch.rand(8, 3, 8, 8)
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Conv2d(3, 6, 3), torch.nn.ReLU()).eval()
    with torch.no_grad():
        return [(image, module(image[None])) for image in torch_images]
"""

CONFIG = """
schema_version = 1

[models.toy]
loader = "toy"
channels = 6

[models.toy.data]
format = "factory"
calibration = { factory = "toy_data:pairs", num_samples = 4 }
evaluation = { factory = "toy_data:pairs" }

[models.toy.quantization]
activation = { observer = "widest", margin = 0.1 }

[models.toy.thresholds.nearness]
max_drop = 0.05
lower_bound = 0.9
"""

ENTRY_POINT = "[qgate]\nsomebody = somebodys_plugin\n"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "qgate.toml").write_text(CONFIG)
    (folder / "toy_data.py").write_text(DATA)
    return folder


def install(site: Path, module: str, source: str, entry_point: str) -> None:
    """Lay out what an installer would: a module, and metadata with an entry point."""
    metadata = site / f"{module}-1.0.dist-info"
    metadata.mkdir(parents=True)
    (site / f"{module}.py").write_text(source)
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(entry_point)


def run(project: Path, *command: str, site: Path | None = None) -> subprocess.CompletedProcess[str]:
    paths = [str(site)] if site else []
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([*paths, *filter(None, [os.environ.get("PYTHONPATH")])])}
    return subprocess.run(
        [sys.executable, "-m", *command], cwd=project, env=environment, check=False, capture_output=True, text=True
    )


def check_measured(project: Path) -> None:
    model = json.loads((project / ".qgate" / "results.json").read_text())["models"]["toy"]
    assert model["quantization"]["activation"] == {"observer": "widest", "margin": 0.1}
    assert model["metrics"]["nearness"]["baseline"] == pytest.approx(1, abs=1e-6)
    assert 0.9 < model["metrics"]["nearness"]["candidate"] < 1
    assert [verdict["status"] for verdict in model["verdicts"]] == ["passed", "passed"]


@pytest.mark.parametrize("command", [("qgate", "check"), ("pytest", "--qgate")])
def test_by_conftest(project: Path, command: tuple[str, ...]) -> None:
    (project / "conftest.py").write_text(PLUGIN)

    finished = run(project, *command)

    assert finished.returncode == 0, finished.stdout + finished.stderr
    check_measured(project)


@pytest.mark.parametrize("command", [("qgate", "check"), ("pytest", "--qgate")])
def test_by_entry_point(project: Path, tmp_path: Path, command: tuple[str, ...]) -> None:
    install(tmp_path / "site", "somebodys_plugin", PLUGIN, ENTRY_POINT)

    finished = run(project, *command, site=tmp_path / "site")

    assert finished.returncode == 0, finished.stdout + finished.stderr
    check_measured(project)


def test_what_is_installed_is_listed(project: Path, tmp_path: Path) -> None:
    install(tmp_path / "site", "somebodys_plugin", PLUGIN, ENTRY_POINT)

    listed = run(project, "qgate", "plugins", "--json", site=tmp_path / "site")

    assert json.loads(listed.stdout)["registered"]["metrics"]["nearness"] == "somebody"


def test_two_distributions_with_one_plugin_name(project: Path, tmp_path: Path) -> None:
    install(tmp_path / "site", "somebodys_plugin", PLUGIN, ENTRY_POINT)
    install(tmp_path / "site", "another_plugin", PLUGIN, "[qgate]\nsomebody = another_plugin\n")

    finished = run(project, "qgate", "check", site=tmp_path / "site")

    assert finished.returncode == 4
    assert 'plugin "somebody" is there twice' in finished.stderr
    assert "somebodys_plugin" in finished.stderr
    assert "another_plugin" in finished.stderr


def test_two_plugins_with_one_metric_name(project: Path, tmp_path: Path) -> None:
    install(tmp_path / "site", "somebodys_plugin", PLUGIN, ENTRY_POINT)
    (project / "conftest.py").write_text(PLUGIN)

    finished = run(project, "qgate", "check", site=tmp_path / "site")

    assert finished.returncode == 4
    assert "is taken twice" in finished.stderr
    assert 'plugin "somebody"' in finished.stderr
    assert "conftest.py" in finished.stderr
    assert "Traceback" not in finished.stderr


def test_a_misspelt_hook(project: Path, tmp_path: Path) -> None:
    misspelt = PLUGIN.replace("qgate_register_loaders", "qgate_register_lodaers")
    install(tmp_path / "site", "somebodys_plugin", misspelt, ENTRY_POINT)

    finished = run(project, "qgate", "check", site=tmp_path / "site")

    assert finished.returncode == 4
    assert "qgate_register_lodaers" in finished.stderr
    assert "somebody" in finished.stderr
    assert len(finished.stderr.strip().splitlines()) == 1
