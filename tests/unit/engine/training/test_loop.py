"""A training is a function of its seed and its state, wherever it was interrupted."""

from __future__ import annotations

import copy
import json
from typing import TYPE_CHECKING, Any

import pytest
import torch
from qat_doubles import calibrated, images, lesson, loaded_model, outlying, training

from qgate.engine.progress import Silent, StepClock
from qgate.engine.training.checkpoint import Checkpoint, packed_state, unpacked_state
from qgate.errors import ModelError, QuantizationError
from qgate.quantization.corrections.bias import biases_of

if TYPE_CHECKING:
    from pathlib import Path

    from qgate.engine.training.checkpoint import State


def flipped(samples: Any, rng: Any, _options: Any) -> Any:
    stacked = torch.stack([sample.input for sample in samples])
    return (stacked.flip(-1) if rng.random() < 0.5 else stacked,), None


def run(state: State | None = None, states: list[State] | None = None, **settings: Any) -> State:
    given = lesson(loaded_model(augment=flipped), **settings)
    return training(given).run(
        state, Silent(), lambda each: states.append(copy.deepcopy(each)) if states is not None else None
    )


def same(one: State, other: State) -> bool:
    return all(
        torch.equal(left, right)
        for name in ("weights", "averaged", "best")
        for left, right in zip(getattr(one, name), getattr(other, name), strict=True)
    )


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_a_training_that_goes_on_from_any_epoch_comes_to_the_same_weights(optimizer: str) -> None:
    states: list[State] = []
    whole = run(states=states, optimizer=optimizer)

    assert same(run(optimizer=optimizer), whole)
    for state in states[:-1]:
        document, blob = packed_state(state)
        stored = unpacked_state(json.loads(json.dumps(document)), blob)
        resumed = run(stored, optimizer=optimizer)
        assert same(resumed, whole)
        assert [epoch.validation_loss for epoch in resumed.curve] == [epoch.validation_loss for epoch in whole.curve]


def test_the_best_epoch_is_the_one_that_validates_best() -> None:
    states: list[State] = []
    given = lesson(loaded_model(module=outlying(), augment=flipped), train=images(32), epochs=6)
    final = training(given).run(None, Silent(), lambda each: states.append(copy.deepcopy(each)))

    losses = [epoch.validation_loss for epoch in final.curve]
    assert final.best_epoch == losses.index(min(losses)) > 0
    kept = states[final.best_epoch - 1].averaged
    assert all(torch.equal(one, other) for one, other in zip(final.best, kept, strict=True))
    assert losses[final.best_epoch] < 0.9 * losses[0]


def test_where_no_epoch_is_better_the_model_stays_as_it_was() -> None:
    given = lesson(learning_rate=100.0, gradient_clipping=1e9, ema_decay=0.0, epochs=2)
    made = training(given)
    before = [value.detach().clone() for value in made.student.relative]

    final = made.run(None, Silent(), lambda _: None)

    assert final.best_epoch == 0
    assert all(torch.equal(one, other) for one, other in zip(final.best, before, strict=True))


def test_scales_learn_until_observers_freeze() -> None:
    states: list[State] = []
    run(states=states, observer_epochs=1, warmup_epochs=0)
    student = training(lesson()).student
    scales = [index for index, name in enumerate(student.names) if student.is_scale(name)]

    first, second, third = (torch.stack([state.weights[index] for index in scales]) for state in states)
    start = torch.stack([student.relative[index].detach() for index in scales])
    assert not torch.equal(first, start)
    assert torch.equal(first, second)
    assert torch.equal(second, third)


def test_the_rate_warms_up_and_falls_to_zero() -> None:
    made = training(lesson(epochs=4, warmup_epochs=1, learning_rate=0.5))
    optimizer = made._optimizer()
    rates = []
    for step in range(4 * made.steps):
        made._set_rates(optimizer, step, 1)
        rates.append(optimizer.param_groups[0]["lr"])

    assert rates[0] == pytest.approx(0.5 / made.steps)
    assert rates.index(max(rates)) == made.steps - 1
    assert rates[2 * made.steps] == pytest.approx(0.25)
    assert rates[-1] < 0.01 * 0.5 + 0.01


def nan_loss(student: torch.Tensor, _teacher: torch.Tensor) -> torch.Tensor:
    return student.sum() * torch.nan


def vector_loss(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    return (student - teacher).flatten(1).mean(1)


def constant_loss(_student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    return teacher.sum()


def failing_loss(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    raise RuntimeError("no such thing")


@pytest.mark.parametrize(
    ("loss", "error", "message"),
    [
        (nan_loss, QuantizationError, r"the training's loss is nan \(validation\); lower learning_rate"),
        (vector_loss, ModelError, r"distillation_loss gave a tensor of shape \(\d,\); expected a scalar"),
        (lambda *_: 3.0, ModelError, "distillation_loss gave 3.0; expected a scalar"),
        (constant_loss, ModelError, "distillation_loss does not depend on the model's outputs"),
        (failing_loss, ModelError, r"distillation_loss failed: RuntimeError: no such thing \(.*test_loop.py:\d+"),
    ],
)
def test_a_loss_that_is_none_is_an_error_of_one_line(loss: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message) as caught:
        training(lesson(loaded_model(distillation_loss=loss))).run(None, Silent(), lambda _: None)
    assert "\n" not in str(caught.value)


def test_weights_that_diverge_are_an_error_with_their_step() -> None:
    def explodes(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
        return ((student - teacher) * (1e38 if student.requires_grad else 1.0)).square().mean()

    with pytest.raises(QuantizationError, match=r"loss is (inf|nan) \(epoch 1, step 1\)"):
        training(lesson(loaded_model(distillation_loss=explodes))).run(None, Silent(), lambda _: None)


def test_a_model_without_parameters_cannot_be_trained() -> None:
    with pytest.raises(QuantizationError, match="no parameter that could be trained"):
        training(lesson(loaded_model(module=torch.nn.ReLU().eval())))


def test_the_supervised_loss_is_given_outputs_and_targets() -> None:
    seen = []

    def loss(outputs: torch.Tensor, targets: list[torch.Tensor]) -> torch.Tensor:
        seen.append((len(outputs), len(targets)))
        return (outputs.mean((1, 2, 3)) - torch.stack(targets)).square().mean()

    final = training(lesson(loaded_model(supervised_loss=loss), loss="supervised", learning_rate=0.02, epochs=5)).run(
        None, Silent(), lambda _: None
    )

    assert set(seen) <= {(4, 4), (3, 3), (1, 1)}
    assert final.curve[final.best_epoch].validation_loss < 0.9 * final.curve[0].validation_loss


def test_feature_maps_are_distilled_from_the_last_module_that_a_pattern_names() -> None:
    given = lesson(feature_maps=("stem", "block.0"))
    made = training(given)

    _, maps = made.student(torch.rand(2, 3, 8, 8))

    assert [tuple(each.shape) for each in maps] == [(2, 8, 8, 8)] * 2
    assert made.objective.maps == ("stem.2", "block.0")


class Dropped(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        convolution = torch.nn.Conv2d(3, 4, 3)
        self.features = torch.nn.Sequential(convolution, torch.nn.SiLU(inplace=True), torch.nn.Dropout())
        self.head = torch.nn.Conv2d(4, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.features(x))


@pytest.mark.parametrize("backend", ["fbgemm", "fused"])
@pytest.mark.parametrize(("pattern", "within"), [("features", 0.01), ("features.0", 0.01)])
def test_feature_maps_of_student_and_teacher_are_of_the_same_place(pattern: str, within: float, backend: str) -> None:
    given = lesson(loaded_model(module=Dropped().eval()), backend=backend, feature_maps=(pattern,))
    made = training(given)
    image = torch.rand(2, 3, 8, 8)

    _, (found,) = made.student(image)
    _, (taught,) = made.objective._teacher(image)

    assert found.shape == taught.shape
    assert (found - taught).square().mean() < within * taught.var()


def test_a_feature_map_that_is_none_is_named() -> None:
    with pytest.raises(QuantizationError, match=r'feature_maps pattern "stern" matches no module.*"stem"'):
        training(lesson(feature_maps=("stern",)))


def test_a_checkpoint_is_only_of_its_own_training(tmp_path: Path) -> None:
    path = tmp_path / "toy.checkpoint"
    state = run(epochs=1)
    Checkpoint(path, {"recipe": "this"}).save(state)

    loaded = Checkpoint(path, {"recipe": "this"}).load()
    assert loaded is not None
    assert same(loaded, state)
    assert Checkpoint(path, {"recipe": "that"}).load() is None
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert Checkpoint(path, {"recipe": "this"}).load() is None


def test_a_training_leaves_the_model_that_it_was_given(tmp_path: Path) -> None:
    given = lesson(epochs=1)
    before = copy.deepcopy(given.inputs.loaded.module.state_dict())
    checkpoint = Checkpoint(tmp_path / "toy.checkpoint", {})

    graph = calibrated(given)
    biases = {name: bias + 1 for name, bias in biases_of(given.plan.converted(copy.deepcopy(graph))).items()}
    trained = given.train(graph, biases, StepClock(Silent()), checkpoint)

    assert biases
    after = given.inputs.loaded.module.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert trained.described["samples"] + trained.described["validation_samples"] == len(images(16))
