"""Several processes train as one does, and stop together, whichever of them fails."""

from __future__ import annotations

import datetime
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from qat_doubles import calibrated, images, lesson, loaded_model, training
from two_processes import Pair

from qgate.engine.factory import FactoryDataset
from qgate.engine.progress import Silent, StepClock
from qgate.engine.training import train
from qgate.engine.training.processes import ALONE, Processes
from qgate.errors import ArtifactError, DataError, ProcessError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qgate.engine.training.checkpoint import State
    from qgate.engine.training.train import Lesson


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    made = Pair()
    yield made
    made.close()


class TwoHeads(torch.nn.Module):
    """A head that is used, and one that helped to train it."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head, self.auxiliary = (torch.nn.Conv2d(3, 3, 1) for _ in range(3))

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        hidden = self.body(image)
        return self.head(hidden), self.auxiliary(hidden)


def first_head(student: Any, teacher: Any) -> torch.Tensor:
    return (student[0] - teacher[0]).square().mean()  # of halves of a batch it is the mean of theirs


def two_heads() -> Lesson:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        loaded = loaded_model(module=TwoHeads().eval(), distillation_loss=first_head)
    return lesson(loaded, train=images(15), weight_decay=0.1, optimizer="sgd", epochs=2)


def run_two_heads(processes: Processes) -> State:
    with processes.together():
        return training(replace(two_heads(), processes=processes)).run(None, Silent(), lambda _: None)


def test_a_loss_that_ignores_an_output_trains_in_two_processes_as_in_one(pair: Pair) -> None:
    alone = run_two_heads(ALONE)

    for together in pair(run_two_heads):
        assert not isinstance(together, str), together
        assert [epoch.validation_loss for epoch in together.curve] == pytest.approx(
            [epoch.validation_loss for epoch in alone.curve], rel=1e-4
        )
        for one, other in zip(together.weights, alone.weights, strict=True):
            assert torch.allclose(one, other, atol=1e-5)


def test_who_fails_in_the_backward_pass_is_not_waited_for(pair: Pair) -> None:
    """Gradients are exchanged there, so the others can be told only by parting from them."""
    errors = pair(run_failing, "backward", {1})

    for error in errors:
        assert error.startswith("_GoneError: a process that trains along has failed, or the way to it: ")
    assert errors[1].endswith("out of memory")


class Broken(FactoryDataset):
    """Training data that one process cannot read in full."""

    def sample(self, index: int) -> Any:
        if index > 2:
            raise DataError("the image is damaged", path="some.png")
        return super().sample(index)


def failing_augment(*_: Any) -> Any:
    raise KeyError("boxes")


def failing_backward(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    def refuse(_: Any) -> None:
        raise RuntimeError("out of memory")

    distance = (student - teacher).square().mean()
    if distance.requires_grad:
        distance.register_hook(refuse)
    return distance


def full_disk(_: State) -> None:
    raise ArtifactError("the training's checkpoint cannot be written: no space left", path="toy.checkpoint")


def nan_loss(student: torch.Tensor, _: Any) -> torch.Tensor:
    return student.sum() * torch.nan


def run_failing(processes: Processes, fault: str, failing: set[int]) -> str:
    """Train where one process or both have a fault, and go back to the orders; give the error."""
    fails = processes.rank in failing
    hooks: dict[str, Any] = {
        "augment": {"augment": failing_augment},
        "backward": {"distillation_loss": failing_backward},
        "nan": {"distillation_loss": nan_loss},
    }.get(fault if fails else "", {})
    data = images(16)
    if fails and fault == "data":
        data = Broken([(sample.input, sample.target) for sample in map(data.sample, range(16))], "broken")
    given = replace(lesson(loaded_model(**hooks), train=images(16)), processes=processes)
    division = given.divided()
    given = replace(given, inputs=replace(given.inputs, train=data))
    said = ""
    try:
        with processes.together():
            made = given.training(calibrated(given), division)
            made.run(None, Silent(), full_disk if fails and fault == "save" else lambda _: None)
    except Exception as error:  # noqa: BLE001  # it is what the test looks at
        said = f"{type(error).__name__}: {error}"
    processes.dismiss()
    return said if processes.rank == 0 or processes.next_order() == {} else "there is no order"


FAILURES = {
    "save": ({0}, "ArtifactError: toy.checkpoint: {}the training's checkpoint cannot be written: no space left"),
    "augment": ({1}, "{}augment failed at the samples"),
    "data": ({1}, "DataError: some.png: {}the image is damaged"),
    "nan": ({0, 1}, "QuantizationError: the training's loss is nan (validation)"),
}


@pytest.mark.parametrize("fault", FAILURES)
def test_what_fails_in_one_process_ends_the_training_in_all(fault: str, pair: Pair) -> None:
    failing, message = FAILURES[fault]

    first, second = pair(run_failing, fault, failing)

    (rank, *others) = failing
    assert message.format("" if others or rank == 0 else f"process {rank}: ") in first
    assert message.format("" if others or rank == 1 else f"process {rank}: ") in second


def run_lesson(processes: Processes, change: dict[str, Any], of_second: dict[str, Any]) -> str:
    """Order a training of one lesson from a process that has another one, perhaps; give the error."""
    settings: dict[str, Any] = {"epochs": 1, **change, **(of_second if processes.rank else {})}
    given = replace(lesson(**settings), processes=processes)
    try:
        if processes.rank == 0:
            given.train(calibrated(given), {}, StepClock(Silent()), None)
        else:
            order = processes.next_order()
            with processes.together():
                given.help(given.plan.observed(given.inputs.loaded), order["alike"], Silent())
    except ProcessError as error:
        return str(error)
    return ""


@pytest.mark.parametrize(
    ("of_second", "differing"),
    [
        ({}, None),
        ({"train": images(16, seed=1)}, "order or content of training data"),
        ({"learning_rate": 0.01}, "configuration"),
        ({"loaded": loaded_model(module=TwoHeads().eval())}, "model"),
    ],
    ids=["alike", "data", "recipe", "model"],
)
def test_a_process_with_other_data_is_refused(of_second: dict[str, Any], differing: str, pair: Pair) -> None:
    first, second = pair(run_lesson, {}, of_second)

    message = (
        f"this process would train with another {differing} than process 0; give all machines the same qgate.toml, "
        "model and training data"
    )
    assert first == (f"process 1: {message}" if differing else "")
    assert second == (message if differing else "")


def test_targets_count_where_the_loss_depends_on_them() -> None:
    def alike(loss: str, target: int) -> dict[str, str]:
        data = FactoryDataset([(sample.input, target) for sample in map(images(4).sample, range(4))], "images")
        return lesson(loaded_model(supervised_loss=first_head), train=data, loss=loss)._alike()

    assert alike("distillation", 1) == alike("distillation", 2)
    assert alike("supervised", 1) != alike("supervised", 2)


def threads_left(processes: Processes) -> list[str]:
    """Train, part, and name the threads of the group that are left, which could abort the interpreter at its end."""
    run_two_heads(processes)
    processes.close()
    names = [task.joinpath("comm").read_text().strip() for task in Path("/proc/self/task").iterdir()]
    return [name for name in names if "gloo" in name]


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")
def test_no_thread_outlives_the_group(pair: Pair) -> None:
    assert pair(threads_left) == [[], []]


def part_early(processes: Processes, leaving: int) -> Any:
    if processes.rank == leaving:
        return processes.close()
    processes.dismiss()
    return processes.next_order() if processes.rank else "dismissed"


@pytest.mark.parametrize(("leaving", "left"), [(1, ["dismissed", None]), (0, [None, {}])])
def test_who_is_gone_is_not_waited_for(leaving: int, left: list[Any], pair: Pair) -> None:
    assert pair(part_early, leaving) == left


def part_while_training(processes: Processes) -> str:
    given = replace(lesson(), processes=processes)
    try:
        with processes.together():
            training(given).run(None, Silent(), lambda _: processes.close() if processes.rank else None)
    except ProcessError as error:
        processes.dismiss()
        return str(error)
    return ""


def test_who_is_gone_while_training_ends_it(pair: Pair) -> None:
    first, _ = pair(part_while_training)

    assert first.startswith("a process that trains along has failed, or the way to it: ")
    assert "\n" not in first


@pytest.fixture
def four_machines(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Be one of four processes, each on a machine of its own; give how they were told to meet."""
    told: dict[str, Any] = {}
    monkeypatch.setattr("torch.distributed.init_process_group", lambda _, **others: told.update(others))
    for name, value in {"RANK": "1", "WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "1", "OMP_NUM_THREADS": ""}.items():
        monkeypatch.setenv(name, value)
    return told


def test_helpers_wait_for_days(four_machines: dict[str, Any]) -> None:
    Processes.from_environment()

    assert four_machines["timeout"] >= datetime.timedelta(days=2)


@pytest.mark.usefixtures("four_machines")
def test_a_process_alone_on_its_machine_uses_all_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train, "cores", lambda: 4)
    before = torch.get_num_threads()

    with train._threads(Processes.from_environment()):
        assert torch.get_num_threads() == 4
    assert torch.get_num_threads() == before
    assert os.environ["WORLD_SIZE"] == "4"
