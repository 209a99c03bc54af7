"""A project whose samples are several shards, and whose gate any executor may run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qgate.engine.artifact import content_sha256
from qgate.engine.gate import Gate
from qgate.local_plugin import load_local_plugin

if TYPE_CHECKING:
    from pathlib import Path

    from qgate.results import ModelResult

FACTORY = """
import os
import signal
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

import qgate

HERE = Path(__file__).parent
DRIVER = HERE / "driver"


@dataclass(frozen=True)
class Scores:
    values: np.ndarray


def net():
    torch.manual_seed(0)
    # What overwrites its input overwrites what an observer has seen.
    layers = (nn.Conv2d(3, 8, 3), nn.SiLU(inplace=True), nn.Conv2d(8, 8, 3), nn.ReLU(inplace=True))
    pooled = (nn.AdaptiveAvgPool2d(2), nn.Flatten())
    module = nn.Sequential(*layers, *pooled, nn.Linear(32, 4))
    return qgate.LoadedModel(
        module.eval(),
        (torch.rand(1, 3, 16, 16),),
        postprocess=lambda output, _: Scores(output.numpy()[0]),
        distillation_loss=lambda output, target: (output - target).square().mean(),
    )


class Images:
    # The scale of values grows from image to image, so that the order of calibration matters.
    def __init__(self, seed, count):
        self.seed, self.count = seed, count

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        if not 0 <= index < self.count:
            raise IndexError(index)
        at = HERE / f"die-{self.seed}-{index}"  # says after how many readings by workers one of them dies
        if at.exists() and DRIVER.read_text() != str(os.getpid()):
            readings = int(at.read_text())
            at.write_text(str(readings - 1))
            if readings == 0:
                at.unlink()
            if readings <= 0:
                os.kill(os.getpid(), signal.SIGKILL)
        if (HERE / f"broken-{self.seed}-{index}").exists():
            raise OSError("the disk is gone")
        generator = torch.Generator().manual_seed(1000 * self.seed + index)
        image = torch.randn(3, 16, 16, generator=generator) * (1 + index % 7)
        if (HERE / f"stale-{self.seed}").exists() or (HERE / f"stale-{self.seed}-{index}").exists():
            image += 1
        return image, int(torch.randint(4, (), generator=generator))


def calibration():
    return Images(1, 30)


def evaluation():
    return Images(2, 100)


def training():
    return Images(3, 20)
"""

PLUGIN = '''
from pathlib import Path

import numpy as np

import qgate
from qgate.engine.wire import from_bytes, to_bytes
from qgate.engine.worker import perform


class Probability(qgate.MeanMetric):
    """The probability of the label: kept as a number an image."""

    name = "probability"

    def score(self, prediction, target):
        weights = np.exp(prediction.values - prediction.values.max())
        return weights[target] / weights.sum()


class Rank:
    """A metric that keeps predictions, and cannot be merged."""

    name, unit, higher_is_better = "rank", "", False

    def __init__(self, class_names):
        self.seen = []

    def update(self, sample_id, prediction, target):
        self.seen.append((sample_id, prediction, target))

    def compute(self, weights, where=None):
        ranks = [int((seen.values > seen.values[target]).sum()) for _, seen, target in self.seen]
        return weights @ np.array(ranks) / weights.sum(axis=1)

    def slices(self):
        return {}

    def support(self, where=None):
        return len(self.seen)


class Closeness(qgate.MeanMetric):
    """How close int8 is to float32; needs no labels."""

    name, compares_with = "closeness", "float32"

    def score(self, prediction, target):
        return -np.abs(prediction.values - target.values).max()


class Jealous(qgate.ActivationObserver):
    """An observer that must see values itself."""

    name = "jealous"

    def __init__(self, **spec):
        super().__init__(**spec)
        self.bound = 0.0

    def observe(self, x):
        self.bound = max(self.bound, x.abs().max())

    def bounds(self):
        return -self.bound, self.bound


class Backwards:
    """Works in this process, on the last task first.

    `stale` names a kind of task and a file that is there while such tasks are worked on.
    """

    name = "backwards"

    from dataclasses import make_dataclass

    Options = make_dataclass("Options", [("isa", str, ""), ("stale", str, "")], frozen=True)

    def __init__(self, options):
        self.options = options

    def map(self, job, tasks, num_threads):
        if self.options.isa:
            job = self._for_another(job)
        found = {index: self._perform(job, task) for index, task in reversed(list(enumerate(tasks)))}
        return iter([found[index] for index in sorted(found)])

    def _perform(self, job, task):
        kind, _, name = self.options.stale.partition(" ")
        if kind != from_bytes(task)["do"]:
            return perform(job, task)
        stale = Path(__file__).with_name(name)
        stale.touch()
        result = perform(job, task)
        stale.unlink()
        return result

    def _for_another(self, job):
        import json

        content = from_bytes(job)
        described = json.loads(content["gate"])
        described["conditions"]["machine"]["isa"] = [self.options.isa]
        return to_bytes({**content, "gate": json.dumps(described)})


@qgate.hookimpl
def qgate_register_metrics():
    return [Probability, Rank, Closeness]


@qgate.hookimpl
def qgate_register_observers():
    return [Jealous]


@qgate.hookimpl
def qgate_register_executors():
    return [Backwards]


@qgate.hookimpl
def qgate_pseudo_label(prediction):
    return int(prediction.values.argmax())
'''

CONFIG = """
schema_version = 1

[qgate]
cache_bytes = 0
{executor}
[models.net]
loader = "factory"
factory = "sharded:net"

[models.net.data]
format = "factory"
calibration = {{ factory = "sharded:calibration", num_samples = 12 }}
evaluation = {{ factory = "sharded:evaluation" }}
train = {{ factory = "sharded:training" }}

[models.net.quantization]
calibrator = "random"
activation = {{ observer = "{observer}" }}
{recipe}

[models.net.thresholds.probability]
max_drop = 0.5

[models.net.thresholds.rank]
max_drop = 0.5

[models.net.thresholds.closeness]
max_drop = 9.5
"""

BACKWARDS = '[qgate.executor]\nname = "backwards"\n'


class Sharded:
    """The project in a folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.write("sharded.py", FACTORY)
        self.write("conftest.py", PLUGIN)

    def write(self, name: str, text: str) -> None:
        """Write a file of the folder."""
        (self.root / name).write_text(text, encoding="utf-8")

    def gate(self, executor: str = "", observer: str = "histogram", recipe: str = "") -> Gate:
        """Open its gate; `recipe` is more of its recipe."""
        self.write("qgate.toml", CONFIG.format(executor=executor, observer=observer, recipe=recipe))
        return Gate.open(self.root / "qgate.toml", plugins=load_local_plugin(self.root), timing=False)

    def run(self, executor: str = "", observer: str = "histogram", recipe: str = "") -> ModelResult:
        """Run its gate."""
        return self.gate(executor, observer, recipe).run("net")

    def outcome(self, executor: str = "", observer: str = "histogram", recipe: str = "") -> dict[str, Any]:
        """Run its gate, and give all that must not depend on who worked."""
        return self.comparable(self.run(executor, observer, recipe))

    def comparable(self, result: ModelResult) -> dict[str, Any]:
        """Give all of the last run that must not depend on who worked."""
        assert {verdict.status for verdict in result.verdicts} <= {"passed", "failed"}, result.verdicts
        return {
            "metrics": result.metrics,
            "conditions": result.conditions,
            "artifact": content_sha256(self.root / ".qgate" / "artifacts" / "net.pt"),
        }
