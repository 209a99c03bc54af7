"""The code in `docs/` runs, and does what the text around it says."""

from __future__ import annotations

import json
import re
import shutil
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import tomli
import torch
from command_line import Outcome, in_process
from html_pages import Reader

from qgate.config.model import TrainingConfig

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Qgate = Callable[..., Outcome]

DOCS = Path(__file__).parents[2] / "docs"
NUM_FRAMES = 12


def blocks(document: str, language: str, chapter: str = "# ") -> list[str]:
    """List the blocks of code in a document, of what is behind a heading."""
    text = (DOCS / document).read_text(encoding="utf-8").partition(chapter)[2]
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty working folder, whose modules are forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    path, modules = sys.path.copy(), set(sys.modules)
    yield tmp_path
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]


@pytest.fixture
def qgate(capsys: pytest.CaptureFixture[str]) -> Qgate:
    return in_process(capsys)


@pytest.fixture
def thermal(project: Path) -> Path:
    """The plugin of `plugins.md` as a `conftest.py`, a network that finds bright frames hot, and frames to judge.

    Of each split, 8 frames are hot and 4 cold; one of the cold ones is bright.
    """
    (project / "conftest.py").write_text("\n\n".join(blocks("plugins.md", "python")), encoding="utf-8")
    weights = {
        "0.weight": torch.full((8, 1, 3, 3), 1 / 9),
        "0.bias": torch.zeros(8),
        "4.weight": torch.tensor([[-1 / 8] * 8, [1 / 8] * 8]),
        "4.bias": torch.tensor([1.0, 0.0]),
    }
    torch.save(weights, project / "camera.thermal.pt")
    random = np.random.default_rng(0)
    for split in ("train", "val"):
        folder = project / "frames" / split
        folder.mkdir(parents=True)
        for index in range(NUM_FRAMES):
            name, brightness = ("hot", 0.7) if index % 3 else ("cold", 0.7 if index == 0 else 0.3)
            frame = random.normal(brightness, 0.1, (1, 16, 16)).astype(np.float32)
            np.save(folder / f"{name}-{index:04}.npy", frame)
    return project


def test_the_plugin_shown_gates_by_each_of_its_classes(thermal: Path, qgate: Qgate) -> None:
    (config,) = blocks("plugins.md", "toml", chapter="### The configuration that uses them")
    (thermal / "qgate.toml").write_text(config, encoding="utf-8")

    checked = qgate("check", "--report", "line", "--report", "html:page.html")

    assert checked.code == 0, checked
    assert checked.out.endswith("thermal: passed\n")
    model = json.loads((thermal / ".qgate" / "results.json").read_text())["models"]["thermal"]
    recipe = model["quantization"]
    assert (recipe["backend"], recipe["calibrator"], recipe["num_samples"]) == ("emulated", "spread", 8)
    assert recipe["weight"] == {"observer": "deviations", "deviations": 5.0}
    recall = model["metrics"]["recall"]
    assert recall["baseline"] == recall["candidate"] == pytest.approx(11 / 12)
    found = {name: (figures["candidate"], figures["support"]) for name, figures in recall["slices"]["class"].items()}
    assert found == {"cold": (0.75, 4), "hot": (1.0, 8)}
    assert "predictions stay with the workers" in (thermal / "page.html").read_text(encoding="utf-8")


def test_the_plugin_shown_shows_panels_of_a_run_in_this_process(thermal: Path, qgate: Qgate) -> None:
    (config,) = blocks("plugins.md", "toml", chapter="### The configuration that uses them")
    (thermal / "qgate.toml").write_text(config.replace('"processes"\nworkers = 1', '"local"'), encoding="utf-8")

    checked = qgate("check", "--report", "html:page.html")

    assert checked.code == 0, checked
    page = Reader((thermal / "page.html").read_text(encoding="utf-8"))
    assert [image["alt"] for image in page.all("img")] == ["cold-0000: cold, misread by float32 and int8"]


def test_the_plugin_shown_exports(thermal: Path, qgate: Qgate) -> None:
    (config,) = blocks("plugins.md", "toml", chapter="### The configuration that uses them")
    (thermal / "qgate.toml").write_text(config, encoding="utf-8")

    exported = qgate("export", "--model", "thermal", "--format", "weights", "--output", "thermal.bin")

    assert exported.code == 0, exported
    weights = np.frombuffer((thermal / "thermal.bin").read_bytes(), dtype=np.int8)
    assert len(weights) == 8 * 9 + 2 * 8
    assert set(weights[:72]) <= {25, 26}  # all are equal, and the range is five times that: 127.5 / 5


def test_the_plugin_shown_proposes_for_init(thermal: Path, qgate: Qgate) -> None:
    written = qgate("init", "--weights", "camera.thermal.pt", "--data", "frames")

    assert written.code == 0, written
    config = (thermal / "qgate.toml").read_text()
    assert 'loader = "thermal"\nweights = "camera.thermal.pt"' in config
    assert 'evaluation = { folder = "frames/val" }' in config


def test_the_errors_of_the_plugin_shown_name_the_file(thermal: Path, qgate: Qgate) -> None:
    (config,) = blocks("plugins.md", "toml", chapter="### The configuration that uses them")
    (thermal / "qgate.toml").write_text(config, encoding="utf-8")
    (thermal / "frames" / "val" / "warm-0012.npy").write_bytes(b"something")
    assert re.search(r'warm-0012\.npy: is of class "warm"; expected one of cold, hot$', qgate("check").error)

    (thermal / "camera.thermal.pt").write_bytes(b"something")
    assert re.search(r"camera\.thermal\.pt: holds no weights of 8 channels: ", qgate("check").error)


NETWORK = """
import torch
from torch import nn

{network}

def load():
    torch.manual_seed(0)
    return Network(), torch.rand(1, 1, 8, 8)


def data():
    images = torch.rand(8, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    images /= 2
    images[1::2] += 0.5  # no image is so near to the middle that rounding tells which polarity it has
    module = load()[0].eval()
    with torch.no_grad():
        return [(image, module(image[None])) for image in images]
"""

CONFTEST = """
import qgate


class Nearness(qgate.MeanMetric):
    name = "nearness"

    def score(self, prediction, target):
        return 1 - float((prediction - target).abs().max())


@qgate.hookimpl
def qgate_register_metrics():
    return [Nearness]
"""

CONFIG = """
schema_version = 1

[models.network]
loader = "factory"
factory = "{module}:load"

[models.network.data]
format = "factory"
calibration = {{ factory = "{module}:data", num_samples = 8 }}
evaluation = {{ factory = "{module}:data" }}

{quantization}

[models.network.thresholds.nearness]
lower_bound = 0.9
"""


@pytest.fixture
def check(project: Path, qgate: Qgate) -> Callable[..., Outcome]:
    """Gate a network that a document shows; each in a module of its own, which Python has not imported yet."""
    (project / "conftest.py").write_text(CONFTEST, encoding="utf-8")

    def run(module: str, network: str, quantization: str = "") -> Outcome:
        (project / f"{module}.py").write_text(NETWORK.format(network=network), encoding="utf-8")
        config = CONFIG.format(module=module, quantization=quantization)
        (project / "qgate.toml").write_text(config, encoding="utf-8")
        return qgate("check")

    return run


def test_what_fx_cannot_trace_and_the_ways_out(check: Callable[..., Outcome], project: Path) -> None:
    chapter = "## When FX cannot trace it"
    untraceable, in_tensors, split = blocks("custom-models.md", "python", chapter)
    (quantization,) = blocks("custom-models.md", "toml", chapter)

    refused = check("untraceable", untraceable)
    assert refused.code != 0
    (verdict,) = json.loads((project / ".qgate" / "results.json").read_text())["models"]["network"]["verdicts"]
    line = 1 + (project / "untraceable.py").read_text().splitlines().index("        if image.mean() < 0.5:")
    assert f"untraceable.py:{line}: FX cannot trace the model itself" in verdict["message"]

    for outcome in (check("in_tensors", in_tensors), check("split_off", split, quantization)):
        assert outcome.code == 0, outcome


IMPORTS = """
from dataclasses import replace

import classifier
import numpy as np
import torch
from torch import nn
"""
SPLITS = """
def learned():
    return classifier.evaluation()[:96]


def judged():
    return classifier.evaluation()[96:]
"""
TRAINED = """
schema_version = 1

[models.classifier]
loader = "factory"
factory = "trained:load"

[models.classifier.data]
format = "factory"
calibration = {{ factory = "classifier:calibration", num_samples = 16 }}
evaluation = {{ factory = "trained:judged" }}
train = {{ factory = "trained:learned" }}

[models.classifier.quantization]
approach = "qat"

[models.classifier.quantization.training]
loss = "{loss}"
epochs = 1

[models.classifier.thresholds.accuracy]
max_drop = 0.05
"""


def test_the_settings_of_training_are_documented_with_their_defaults() -> None:
    (settings,) = (block for block in blocks("qat.md", "toml", "## Settings"))
    documented = tomli.loads(settings)["models"]["best"]["quantization"]["training"]

    defaults = {name: value for name, value in asdict(TrainingConfig()).items() if name not in {"augment", "place"}}
    assert documented == {name: list(value) if isinstance(value, tuple) else value for name, value in defaults.items()}


@pytest.mark.parametrize("loss", ["distillation", "supervised"])
def test_the_documented_functions_of_training_train_the_classifier(loss: str, project: Path, qgate: Qgate) -> None:
    example = DOCS.parent / "examples" / "custom-model"
    for name in ("classifier.py", "classifier.pt", "digits.npz", "conftest.py"):
        shutil.copy(example / name, project)
    (functions,) = blocks("qat.md", "python", "## Other tasks")
    hooks = "augment=augment, supervised_loss=supervised_loss, distillation_loss=distillation_loss"
    load = f"def load():\n    return replace(classifier.load(), {hooks})\n"
    (project / "trained.py").write_text("\n\n".join([IMPORTS, functions, load, SPLITS]), encoding="utf-8")
    (project / "qgate.toml").write_text(TRAINED.format(loss=loss), encoding="utf-8")

    outcome = qgate("check")

    assert outcome.code == 0, outcome.out
    assert f"training: {loss}, 77 samples and 19 to validate with" in outcome.out
