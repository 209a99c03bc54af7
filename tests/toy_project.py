"""The toy project, with a metric and a calibrator of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qgate.testing.project import TOY
from qgate.testing.project import Project as ToyProject

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

__all__ = ["HELD", "MISSED", "PLUGIN", "SPEED", "TOY", "Folder", "Project"]

PLUGIN = """
import qgate


class Accuracy(qgate.MeanMetric):
    name = "accuracy"

    def score(self, prediction, target):
        return float(prediction.argmax() == target)


class FirstOnes:
    name = "first_ones"

    def select(self, dataset, num_samples, rng):
        return list(range(min(num_samples, len(dataset))))


@qgate.hookimpl
def qgate_register_metrics():
    return [Accuracy]


@qgate.hookimpl
def qgate_register_calibrators():
    return [FirstOnes]
"""

QUANTIZATION = """
[models.toy.quantization]
calibrator = "first_ones"
activation = { observer = "minmax" }
"""

HELD = "[models.toy.thresholds.accuracy]\nmax_drop = 0.9\nlower_bound = 0.1\n"
MISSED = "[models.toy.thresholds.accuracy]\nmax_drop = 0.9\nlower_bound = 1.5\n"
SPEED = "[models.toy.thresholds.speedup]\nlower_bound = 0.001\n"


class Folder(ToyProject):
    """A folder with `toy.py`, a `conftest.py` that registers plugins, and a `qgate.toml` whose limits hold."""

    def __init__(self, root: Path, *, written: bool = False) -> None:
        super().__init__(root, written=written)
        if not written:
            self.write("conftest.py", PLUGIN)
            self.configure(HELD)

    def configure(self, *tables: str, models: tuple[str, ...] = ("toy",), name: str = "qgate.toml") -> None:
        """Write a configuration of these models; thresholds are tables of `toy`, and `toy` in them is each model."""
        super().configure(QUANTIZATION, *tables, models=models, name=name)


class Project(Folder):
    """The same as the working folder, with runs of pytest in it."""

    def __init__(self, pytester: pytest.Pytester) -> None:
        super().__init__(pytester.path)
        self.pytester = pytester

    def run(self, *arguments: str) -> pytest.RunResult:
        """Run pytest in this process, without a plugin that would import all of Hypothesis again each time."""
        return self.pytester.runpytest_inprocess(*arguments)
