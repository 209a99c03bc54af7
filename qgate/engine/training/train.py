"""One model's training: what it needs is gathered, the processes are told, the loop is run."""

from __future__ import annotations

import copy
import os
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch

from qgate.engine.correct import correct_graph
from qgate.engine.digest import digest, evaluator_settings, weights_sha256
from qgate.engine.evaluate import cores, read_sample
from qgate.engine.overlap import fingerprints
from qgate.engine.progress import Silent
from qgate.engine.quantize import Plan, said_of_recipe
from qgate.engine.training.checkpoint import packed_state, unpacked_state
from qgate.engine.training.data import Batches, Division, check_count, divide_training
from qgate.engine.training.loop import Training
from qgate.engine.training.objective import Objective
from qgate.engine.training.processes import Processes
from qgate.engine.wire import from_bytes, to_bytes
from qgate.errors import ConfigError, ProcessError, QuantizationError
from qgate.quantization.corrections.bias import biases_of, take_biases
from qgate.quantization.fake_quantize import Student
from qgate.quantization.layers import float_graph
from qgate.quantization.prepare import matching
from qgate.quantization.ranges import ranges_of, take_ranges
from qgate.quantization.teacher import Teacher

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from qgate.config.model import ModelConfig, Place
    from qgate.engine.load import Inputs
    from qgate.engine.progress import Progress, StepClock
    from qgate.engine.quantize import Calibration
    from qgate.engine.training.checkpoint import Checkpoint, State
    from qgate.plugins import Registry
    from qgate.protocols import Dataset

    Biases = Mapping[str, torch.Tensor]

__all__ = ["Lesson", "Trained", "check_trainable", "help_training", "train_by"]

_NOTHING_TO_TRAIN = 'the model has no parameter that could be trained; quantize it with approach = "ptq"'


@dataclass(frozen=True)
class Trained:
    """A trained graph, calibrated and ready to convert, and what is to be said of its training, JSON-able."""

    graph: torch.fx.GraphModule
    described: dict[str, Any]


@dataclass(frozen=True)
class Lesson:
    """What a training is made of. `judged` are the fingerprints of evaluation samples, which it never sees."""

    model: ModelConfig
    inputs: Inputs
    plan: Plan
    judged: Sequence[str]
    seed: int
    processes: Processes = field(default_factory=Processes)

    def train(
        self, observed: torch.fx.GraphModule, biases: Biases, clock: StepClock, checkpoint: Checkpoint | None
    ) -> Trained:
        """Train a calibrated graph from other biases; where there is a checkpoint of this training, go on from it.

        Raises `DataError`, `ModelError`, `QuantizationError`, `ArtifactError`.
        """
        config = self.model.quantization.training
        division = self.divided()
        state = checkpoint.load() if checkpoint else None
        resumed = len(state.curve) - 1 if state else 0
        if self.processes.size > 1:
            self.processes.order(model=self.model.name, alike=self._alike())
        with self.processes.together(), _threads(self.processes):
            self._tell(observed, biases, division, state)
            take_biases(observed, biases)
            training = self.training(observed, division)
            with clock.step("train", config.epochs * training.steps) as progress:
                final = training.run(state, progress, checkpoint.save if checkpoint else _forget)
        training.student.take(final.best)
        graph = training.student.calibrated(self.inputs.loaded.example_inputs)
        return Trained(graph, self._described(training, final, resumed))

    def help(self, observed: torch.fx.GraphModule, alike: Mapping[str, str], progress: Progress) -> None:
        """Train along with rank 0, from what that has told; nothing is kept of it.

        Raises `ProcessError` where something that must be `alike` is not, and what `train` raises.
        """
        differing = [name for name, sha256 in self._alike().items() if alike.get(name) != sha256]
        if differing:
            raise ProcessError(
                f"this process would train with another {' and another '.join(differing)} than process 0; give all "
                "machines the same qgate.toml, model and training data"
            )
        self.processes.added()
        known = from_bytes(self.processes.shared())
        take_ranges(observed, known["ranges"])
        take_biases(observed, known["biases"])
        state = unpacked_state(*known["state"]) if known["state"] else None
        with _threads(self.processes):
            self.training(observed, Division(**known["division"])).run(state, progress, _forget)

    def _tell(self, observed: torch.fx.GraphModule, biases: Biases, division: Division, state: State | None) -> None:
        """Tell the other processes what to start from."""
        if self.processes.size == 1:
            return
        start = {"ranges": ranges_of(observed), "biases": dict(biases), "division": vars(division)}
        told = to_bytes({**start, "state": packed_state(state) if state else None})
        self.processes.added()  # all are there, and can take it
        self.processes.shared(told)

    def divided(self) -> Division:
        """Divide the training data. Raises `DataError`."""
        split = self.model.data.train
        assert split is not None  # noqa: S101  # the configuration demands it
        share = self.model.quantization.training.validation_share
        return divide_training(self.samples, self.judged, share, self.seed, split.place, self.processes.size)

    @cached_property
    def samples(self) -> list[str]:
        """Give the fingerprints of the training data. Raises `DataError`."""
        return fingerprints(self._dataset, range(len(self._dataset)))

    @cached_property
    def _targets(self) -> list[str]:
        """Give the hashes of the training data's targets, where the loss depends on them."""
        is_supervised = self.model.quantization.training.loss == "supervised"
        indices = range(len(self._dataset)) if is_supervised else ()
        return [digest(read_sample(self._dataset, index).target) for index in indices]

    def trained_on(self) -> list[Any]:
        """Say, JSON-able, what the outcome depends on beside recipe and model."""
        return [self.samples, self._targets, str(choose_device(self.model)), self.processes.size]

    def _alike(self) -> dict[str, str]:
        """Hash what all processes need alike, each having its own: other samples may be those that judge."""
        model = self.model
        said = [model.loader, evaluator_settings(model.options), said_of_recipe(model, self.plan.recipe), self.seed]
        return {
            "configuration": digest([*said, choose_device(model).type]),
            "model": weights_sha256(self.inputs.loaded.module),
            "order or content of training data": digest([self.samples, self._targets]),
        }

    def training(self, observed: torch.fx.GraphModule, division: Division) -> Training:
        """Prepare the loop. Raises `QuantizationError`."""
        config, loaded = self.model.quantization.training, self.inputs.loaded
        device = choose_device(self.model)
        recipe, backend_config = self.plan.recipe, self.plan.backend.backend_config()
        equalized = loaded.example_inputs if recipe.equalization else None
        graph = float_graph(loaded.module, backend_config, recipe.non_traceable, equalized).module
        teacher = Teacher(graph, observed, matching(loaded.module, config.feature_maps, "feature_maps"))
        student = Student(observed, teacher.watched).to(device)
        if all(map(student.is_scale, student.names)):
            raise QuantizationError(_NOTHING_TO_TRAIN)
        objective = Objective(loaded, config, teacher.to(device))
        batches = Batches(loaded, self._dataset, config.augment)
        return Training(student, objective, batches, division, config, self.seed, device, self.processes)

    @property
    def _dataset(self) -> Dataset:
        assert self.inputs.train is not None  # noqa: S101  # opened with the others
        return self.inputs.train

    def _described(self, training: Training, final: State, resumed: int) -> dict[str, Any]:
        return {
            "loss": training.config.loss,
            "samples": len(training.division.learning),
            "validation_samples": len(training.division.validation),
            "left_out": training.division.left_out,
            "device": str(training.device),
            "processes": self.processes.size,
            "seconds": sum(epoch.seconds for epoch in final.curve),
            "resumed_after": resumed,
            "best_epoch": final.best_epoch,
            "curve": [vars(epoch) for epoch in final.curve],
        }


def train_by(
    calibration: Calibration, lesson: Lesson, checkpoint: Checkpoint | None, clock: StepClock
) -> tuple[torch.fx.GraphModule, dict[str, Any]]:
    """Give the trained int8 reference graph, and what is to be said of the training.

    Raises `TraceError`, and what `Lesson.train` raises.
    """
    with clock.step("quantize"):
        observed = lesson.plan.observed(lesson.inputs.loaded)
    calibration.fill(observed, clock)
    biases = _corrected_biases(observed, lesson, calibration, clock) if lesson.plan.recipe.bias_correction else {}
    trained = lesson.train(observed, biases, clock, checkpoint)
    with clock.step("quantize"):
        return lesson.plan.converted(trained.graph), trained.described


def _corrected_biases(
    observed: torch.fx.GraphModule, lesson: Lesson, calibration: Calibration, clock: StepClock
) -> dict[str, torch.Tensor]:
    """Give the biases that post-training quantization ends with: training goes on from them."""
    with clock.step("quantize"):
        reference = lesson.plan.converted(copy.deepcopy(observed))
    correct_graph(reference, lesson.model.quantization, lesson.inputs, calibration.chosen, clock)
    return biases_of(reference)


def help_training(  # noqa: PLR0913, PLR0917  # what a lesson is made of, and what rank 0 ordered
    model: ModelConfig, registry: Registry, inputs: Inputs, seed: int, processes: Processes, alike: Mapping[str, str]
) -> None:
    """Train along with rank 0, inside `Processes.together`. Raises `QGateError`."""
    plan = Plan.of(model, registry, inputs.loaded)
    Lesson(model, inputs, plan, (), seed, processes).help(plan.observed(inputs.loaded), alike, Silent())


def check_trainable(model: ModelConfig, inputs: Inputs, processes: Processes) -> None:
    """See that the model's training can start, as far as that can be told without quantizing it.

    Raises `ConfigError` where its loss or its device is not there, `DataError` where there are too few samples, and
    `QuantizationError` where there is nothing to train, or a pattern of `feature_maps` matches nothing.
    """
    training, split = model.quantization.training, model.data.train
    place = training.place or model.quantization.place
    assert inputs.train is not None  # noqa: S101  # opened with the others
    assert split is not None  # noqa: S101  # the configuration demands it
    check_count(len(inputs.train), 0, training.validation_share, processes.size, split.place)
    _check_module(inputs.loaded.module, training.feature_maps, place)
    if training.loss == "supervised" and inputs.loaded.supervised_loss is None:
        raise ConfigError(
            f'[models.{model.name}.quantization.training] loss = "supervised", but loader "{model.loader}" gives no '
            'supervised_loss; use "distillation", which needs none',
            path=place.path,
            line=place.line,
        )
    choose_device(model)


def _check_module(module: torch.nn.Module, feature_maps: Sequence[str], place: Place) -> None:
    if not any(value.requires_grad for value in module.parameters()):
        raise QuantizationError(_NOTHING_TO_TRAIN, path=place.path, line=place.line)
    try:
        matching(module, feature_maps, "feature_maps")
    except QuantizationError as error:
        raise QuantizationError(error.message, path=place.path, line=place.line) from None


def choose_device(model: ModelConfig) -> torch.device:
    """Give the device to train on. Raises `ConfigError` where the one that is named is not there."""
    training = model.quantization.training
    wanted, place = training.device, training.place or model.quantization.place
    has_cuda = torch.cuda.is_available()
    if wanted == "cuda" and not has_cuda:
        raise ConfigError(
            f'[models.{model.name}.quantization.training] device = "cuda", but torch finds no GPU here; use "auto"',
            path=place.path,
            line=place.line,
        )
    if wanted == "cpu" or not has_cuda:
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))


@contextmanager
def _threads(processes: Processes) -> Iterator[None]:
    """Train with as many threads as there are cores, unless OMP_NUM_THREADS says otherwise, as `torchrun` lets it."""
    said, before = os.environ.get("OMP_NUM_THREADS", ""), torch.get_num_threads()
    torch.set_num_threads(int(said) if said.isdigit() else max(1, cores() // processes.local_size))
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _forget(_: State) -> None:
    """Keep nothing."""
