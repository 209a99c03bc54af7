from __future__ import annotations

import random
import threading
import time
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from qgate.engine.evaluate import brief, compares_with_float32, evaluate
from qgate.engine.factory import FactoryDataset
from qgate.engine.progress import Silent
from qgate.errors import DataError, ModelError, PluginError, QGateError
from qgate.metrics import MeanMetric
from qgate.protocols import LoadedModel
from qgate.quantization.prepare import quiet_torch_ao

NAN = float("nan")


class Value(MeanMetric):
    """Scores a prediction with its own value, and keeps the order."""

    name = "value"

    def __init__(self, class_names: tuple[str, ...] = ()) -> None:
        super().__init__(class_names)
        self.seen: list[tuple[str, float]] = []

    def score(self, prediction: Any, target: Any) -> float:
        return float(prediction)

    def update(self, sample_id: str, prediction: Any, target: Any) -> None:
        self.seen.append((sample_id, float(prediction)))
        super().update(sample_id, prediction, target)


class Data(FactoryDataset):
    """Numbers as samples; reading one takes a random while, and one of them may fail."""

    def __init__(self, count: int = 12, *, broken: int = -1) -> None:
        super().__init__([(torch.tensor([float(index)]), index) for index in range(count)], "numbers")
        self.broken = broken
        self.read: list[int] = []

    def sample(self, index: int) -> Any:
        time.sleep(random.random() * 0.003)  # noqa: S311  # nothing secret
        self.read.append(index)
        if index == self.broken:
            raise OSError("bad sector")
        return super().sample(index)


class Scale(nn.Module):
    def __init__(self, factor: float, *, broken: int = -1, in_place: bool = False) -> None:
        super().__init__()
        self.factor, self.broken, self.in_place = factor, broken, in_place

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if int(x) == self.broken:
            raise RuntimeError("shapes do not fit")
        return x.mul_(self.factor) if self.in_place else x * self.factor


def run(dataset: Data, float32: nn.Module, int8: nn.Module, **loaded: Any) -> dict[str, dict[str, Any]]:
    metrics: dict[str, dict[str, Any]] = {"float32": {"value": Value()}, "int8": {"value": Value()}}
    model = LoadedModel(float32, (torch.zeros(1, 1),), **loaded)
    evaluate(model, {"float32": float32, "int8": int8}, dataset, metrics, Silent())
    return metrics


@pytest.mark.parametrize("attempt", range(3))
def test_the_order_is_the_data_sets_whatever_the_threads_do(attempt: int) -> None:
    metrics = run(Data(), Scale(1.0), Scale(2.0))

    assert metrics["float32"]["value"].seen == [(str(index), float(index)) for index in range(12)]
    assert metrics["int8"]["value"].seen == [(str(index), 2.0 * index) for index in range(12)]


def test_each_sample_is_read_and_preprocessed_once_for_both_arms() -> None:
    dataset, preprocessed = Data(), []

    def preprocess(value: torch.Tensor) -> Any:
        preprocessed.append(float(value))
        return (value.reshape(1, 1),), None

    run(dataset, Scale(1.0), Scale(2.0), preprocess=preprocess)

    assert sorted(dataset.read) == sorted(preprocessed) == list(range(12))


def test_an_arm_that_changes_its_input_does_not_change_the_others_or_the_data() -> None:
    dataset = Data()

    metrics = run(dataset, Scale(10.0, in_place=True), Scale(2.0, in_place=True))

    assert metrics["int8"]["value"].seen == [(str(index), 2.0 * index) for index in range(12)]
    assert [float(dataset.sample(index).input) for index in range(12)] == list(range(12))


@pytest.mark.parametrize(("float32", "int8", "arm"), [(1.0, NAN, "int8"), (NAN, 1.0, "float32"), (NAN, NAN, "float32")])
def test_nan_is_an_error_that_names_the_arm_and_the_sample(float32: float, int8: float, arm: str) -> None:
    with pytest.raises(ModelError, match=f'the {arm} model gave NaN at sample "'):
        run(Data(), Scale(float32), Scale(int8))


class Difference(MeanMetric):
    """Scores a prediction by its distance from float32's."""

    name = "difference"
    compares_with = "float32"

    def score(self, prediction: Any, target: Any) -> float:
        return abs(float(prediction) - float(target))


def test_a_metric_may_compare_with_float32_instead_of_targets() -> None:
    metrics: Any = {arm: {"difference": Difference(()), "value": Value()} for arm in ("int8", "float32")}
    data = FactoryDataset([(torch.tensor([float(index)]), None) for index in range(12)], "numbers")
    model = LoadedModel(Scale(1.0), (torch.zeros(1, 1),))

    evaluate(model, {"int8": Scale(3.0), "float32": Scale(1.0)}, data, metrics, Silent())

    assert metrics["float32"]["difference"].compute(np.ones((1, 12)))[0] == 0
    assert metrics["int8"]["difference"].compute(np.ones((1, 12)))[0] == pytest.approx(2 * np.arange(12).mean())
    assert metrics["int8"]["value"].compute(np.ones((1, 12)))[0] == pytest.approx(3 * np.arange(12).mean())


def test_what_a_metric_compares_with_must_be_known() -> None:
    metric = Difference(())
    metric.compares_with = "float23"  # type: ignore[misc]

    with pytest.raises(
        PluginError, match=r'"difference": compares_with is \'float23\'; expected "targets" or "float32"'
    ):
        compares_with_float32(metric)


class Broken(Value):
    def score(self, prediction: Any, target: Any) -> float:
        return 1 / (target - 7)


def test_a_sample_that_cannot_be_read_is_named() -> None:
    with pytest.raises(DataError, match=r"sample 7 cannot be read: OSError: bad sector \(.*test_evaluate\.py:\d+"):
        run(Data(broken=7), Scale(1.0), Scale(1.0))


@pytest.mark.parametrize("arm", ["float32", "int8"])
def test_an_arm_that_fails_is_named_with_its_sample(arm: str) -> None:
    arms = {name: Scale(1.0, broken=7 if name == arm else -1) for name in ("float32", "int8")}

    with pytest.raises(ModelError, match=rf'^the {arm} model failed at sample "7": RuntimeError: shapes do not fit'):
        run(Data(), **arms)


@pytest.mark.parametrize("step", ["preprocess", "postprocess"])
def test_a_step_of_the_loader_that_fails_is_named_with_its_sample(step: str) -> None:
    def fail(value: Any, context: Any = None) -> Any:
        if float(value) == 7:
            raise KeyError("boxes")
        return ((value.reshape(1, 1),), None) if step == "preprocess" else value

    with pytest.raises(ModelError, match=rf"{step} .*failed at sample \"7\": KeyError: 'boxes' \(.*test_evaluate\.py"):
        run(Data(), Scale(1.0), Scale(1.0), **{step: fail})


def test_a_metric_that_fails_is_named_with_sample_and_arm() -> None:
    metrics = {arm: {"value": Broken()} for arm in ("float32", "int8")}
    model = LoadedModel(Scale(1.0), (torch.zeros(1, 1),))

    with pytest.raises(PluginError, match=r'metric "value" failed at sample "7" \(float32\): ZeroDivisionError'):
        evaluate(model, {"float32": Scale(1.0), "int8": Scale(1.0)}, Data(), metrics, Silent())


def test_a_plugins_own_error_is_handed_on_as_it_is() -> None:
    def fail(_: Any) -> Any:
        raise DataError("is grey, expected three channels", path="7.jpg")

    with pytest.raises(DataError, match=r"^7\.jpg: is grey"):
        run(Data(), Scale(1.0), Scale(1.0), preprocess=fail)


def test_after_an_error_no_thread_goes_on() -> None:
    dataset = Data(400, broken=0)

    with pytest.raises(QGateError):
        run(dataset, Scale(1.0), Scale(1.0))

    assert len(dataset.read) < 400
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("qgate")]


def test_of_what_torchscript_raises_only_the_message_is_told() -> None:
    with quiet_torch_ao():
        traced = torch.jit.trace(nn.Conv2d(3, 4, 1), torch.ones(1, 3, 8, 8))

    with pytest.raises(RuntimeError) as caught:
        traced(torch.ones(1, 2, 8, 8))

    assert "Traceback of TorchScript" in str(caught.value)
    assert brief(caught.value).startswith("RuntimeError: Given groups=1, weight of size [4, 3, 1, 1], ")
