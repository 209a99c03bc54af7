"""A project whose factory counts what is computed, and runs of its gate as in a new process."""

from __future__ import annotations

import sys
from collections import Counter
from typing import TYPE_CHECKING, Any

from qgate.engine.gate import Gate
from qgate.local_plugin import load_local_plugin

if TYPE_CHECKING:
    from pathlib import Path

    from qgate.results import ModelResult

FACTORY = """
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

import qgate

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Prediction:
    values: np.ndarray
    kind: str

    def __len__(self):
        return len(self.values)


def said(name):
    return float((HERE / name).read_text())


def count(what):
    with (HERE / "calls").open("a") as stream:
        stream.write(what + "\\n")


def preprocess(image):
    count("preprocess")
    return (image.unsqueeze(0) * BRIGHTNESS,), None


def postprocess(output, context):
    import helper

    count("postprocess")
    return Prediction(helper.flat(output).numpy() * SCALE, "flat")


BRIGHTNESS, SCALE = said("brightness"), said("scale")


def net():
    torch.manual_seed(int(said("weights")))
    module = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3))
    return qgate.LoadedModel(module.eval(), (torch.rand(1, 3, 8, 8),), preprocess, postprocess)


def images(seed, label):
    drawn = torch.rand(12, 3, 8, 8, generator=torch.Generator().manual_seed(int(seed)))
    return [(image, label + index) for index, image in enumerate(drawn)]


def calibration():
    return images(100 + said("calibration"), 0)


def evaluation():
    return images(said("evaluation"), said("labels"))
"""

HELPER = """
def flat(output):
    return output.flatten()
"""

PLUGIN = '''
import qgate


class Distance(qgate.MeanMetric):
    """How far a prediction is from its label."""

    name = "distance"
    higher_is_better = False

    def score(self, prediction, target):
        return abs(float(prediction.values.mean()) - target)


@qgate.hookimpl
def qgate_register_metrics():
    return [Distance]
'''

CONFIG = """
schema_version = 1

[qgate]
seed = 0

[models.net]
loader = "factory"
factory = "counting:net"

[models.net.data]
format = "factory"
calibration = { factory = "counting:calibration", num_samples = 8 }
evaluation = { factory = "counting:evaluation" }

[models.net.quantization]
activation = { observer = "minmax" }

[models.net.thresholds.distance]
max_drop = 0.5
"""
NUMBERS = ("weights", "calibration", "evaluation", "labels", "brightness", "scale")


class Counting:
    """The project in a folder; each number of it is in a file of its own that the factory reads."""

    def __init__(self, root: Path) -> None:
        self.root = root
        texts = {"counting.py": FACTORY, "helper.py": HELPER, "conftest.py": PLUGIN, "qgate.toml": CONFIG}
        for name, text in {**texts, **dict.fromkeys(NUMBERS, "1")}.items():
            (root / name).write_text(text, encoding="utf-8")

    @property
    def entries(self) -> list[Path]:
        """List the files of the cache."""
        return sorted((self.root / ".qgate" / "cache").glob("*.entry"))

    def edit(self, name: str, old: str, new: str) -> None:
        """Replace a part of a file."""
        path = self.root / name
        text = path.read_text(encoding="utf-8")
        assert old in text
        path.write_text(text.replace(old, new), encoding="utf-8")

    def run(self) -> tuple[ModelResult, Counter[str]]:
        """Run the gate, all modules of the project imported anew; give its result, and what was called how often."""
        calls = self.root / "calls"
        calls.unlink(missing_ok=True)
        for name in ("counting", "helper"):
            sys.modules.pop(name, None)
        gate = Gate.open(self.root / "qgate.toml", plugins=load_local_plugin(self.root), timing=False)
        result = gate.run("net")
        return result, Counter(calls.read_text(encoding="utf-8").split())


def metrics_of(result: ModelResult) -> dict[str, Any]:
    """Give what does not depend on when a run was."""
    return {name: figures for name, figures in result.metrics.items() if name != "size_reduction"}
