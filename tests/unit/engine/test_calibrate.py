from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from qgate.engine.calibrate import calibrate
from qgate.engine.factory import FactoryDataset
from qgate.engine.progress import StepClock
from qgate.errors import DataError, ModelError
from qgate.protocols import LoadedModel


class Records(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[float] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen.append(float(x))
        if float(x) == 5:
            raise RuntimeError("shapes do not fit")
        return x.add_(100)


class Counts:
    """Progress that counts."""

    def __init__(self) -> None:
        self.events: list[Any] = []

    def start(self, step: str, total: int | None) -> None:
        self.events.append((step, total))

    def advance(self, count: int = 1) -> None:
        self.events.append(count)

    def finish(self) -> None:
        self.events.append("end")


DATA = FactoryDataset([(torch.tensor([float(value)]), 0) for value in range(10)], "numbers")


def run(chosen: list[int], **loaded: Any) -> tuple[list[float], Counts]:
    module, progress = Records(), Counts()
    with StepClock(progress).step("calibrate", len(chosen)) as step:
        calibrate(module, LoadedModel(module, (), **loaded), DATA, chosen, step)
    return module.seen, progress


def test_the_chosen_samples_run_through_in_order_and_are_counted() -> None:
    seen, progress = run([7, 1, 9, 0, 3, 8])

    assert seen == [7, 1, 9, 0, 3, 8]
    assert progress.events == [("calibrate", 6), 1, 1, 1, 1, 1, 1, "end"]


def test_a_model_that_works_in_place_leaves_the_data_alone() -> None:
    run([7, 1])

    assert [float(DATA.sample(index).input) for index in range(10)] == list(range(10))


def test_a_failing_model_names_the_sample() -> None:
    with pytest.raises(ModelError, match=r"failed at calibration sample 5: RuntimeError: shapes do not fit \(.*:\d+"):
        run([4, 5, 6])


def test_a_failing_preprocess_names_the_sample() -> None:
    with pytest.raises(ModelError, match='preprocess failed at sample "4": ZeroDivisionError'):
        run([4, 5], preprocess=lambda value: 1 / 0)


def test_an_index_out_of_range_names_it() -> None:
    with pytest.raises(DataError, match="sample 99 cannot be read: IndexError"):
        run([1, 99])
