"""What is trained on is never what is judged by."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from qat_doubles import PLACE, images, lesson, loaded_model

from qgate.engine.factory import FactoryDataset
from qgate.engine.overlap import fingerprints
from qgate.engine.training.data import Batches, divide_training
from qgate.engine.training.objective import relative_error
from qgate.errors import DataError, ModelError


def test_evaluation_samples_are_neither_learned_from_nor_validated_with() -> None:
    dataset = images(20)
    judged = fingerprints(dataset, range(5))

    division = divide_training(fingerprints(dataset, range(20)), judged, 0.2, 0, PLACE)

    assert sorted(division.learning + division.validation) == list(range(5, 20))
    assert len(division.validation) == 3
    assert division.left_out == 5


def test_the_same_seed_divides_alike() -> None:
    samples = fingerprints(images(20), range(20))
    one, again, other = (divide_training(samples, (), 0.2, seed, PLACE) for seed in (1, 1, 2))

    assert one == again
    assert one != other


def test_training_data_that_is_judged_by_is_refused() -> None:
    samples = fingerprints(images(4), range(4))

    with pytest.raises(DataError, match=r"^qgate.toml:7: of 4 training samples 4 are evaluation samples, by content"):
        divide_training(samples, samples, 0.2, 0, PLACE)


@pytest.mark.parametrize(("kept", "share", "processes", "needed"), [(1, 0.1, 1, 2), (3, 0.1, 4, 5), (4, 0.5, 3, 5)])
def test_each_process_needs_a_sample_to_learn_from(kept: int, share: float, processes: int, needed: int) -> None:
    samples = fingerprints(images(12), range(12))

    with pytest.raises(DataError) as caught:
        divide_training(samples, samples[kept:], share, 0, PLACE, processes)

    training = f"training in {processes} processes" if processes > 1 else "training"
    assert str(caught.value) == (
        f"qgate.toml:7: of 12 training samples {12 - kept} are evaluation samples, by content; {training} needs "
        f"{needed} others at least"
    )
    enough = divide_training(samples, samples[needed:], share, 0, PLACE, processes)
    assert len(enough.learning) >= processes
    assert enough.validation


def test_without_augment_samples_are_batched_as_in_evaluation() -> None:
    dataset = images(4)

    (batch,) = Batches(loaded_model(), dataset, None)([[2, 0]], (0,), augmented=True)

    assert torch.equal(batch.inputs[0], torch.stack([dataset.sample(2).input, dataset.sample(0).input]))
    assert [float(target) for target in batch.targets] == [float(dataset.sample(index).target) for index in (2, 0)]


def test_augment_is_given_samples_a_generator_and_the_options() -> None:
    seen = []

    def augment(samples: list[object], rng: np.random.Generator, options: object) -> object:
        seen.append((len(samples), float(rng.random()), options))
        return (torch.zeros(len(samples), 3),), "targets"

    batches = Batches(loaded_model(augment=augment), images(4), "options")
    for _ in range(2):
        made = list(batches([[0, 1], [2, 3]], (7, 1), augmented=True))

    assert [batch.targets for batch in made] == ["targets"] * 2
    assert seen[:2] == seen[2:]  # drawn anew, alike
    assert len({draw for _, draw, _ in seen}) == 2
    assert seen[0][::2] == (2, "options")


def test_samples_of_several_shapes_need_a_batch_size_of_one() -> None:
    dataset = FactoryDataset([(torch.zeros(3, 8, size), 0) for size in (8, 9)], "several")

    with pytest.raises(ModelError, match="set batch_size = 1"):
        list(Batches(loaded_model(), dataset, None)([[0, 1]], (0,), augmented=True))


def test_an_augment_that_fails_names_its_samples() -> None:
    def augment(*_: object) -> object:
        raise KeyError("boxes")

    with pytest.raises(ModelError, match=r"augment failed at the samples 0, 1: KeyError: 'boxes'"):
        list(Batches(loaded_model(augment=augment), images(4), None)([[0, 1]], (0,), augmented=True))


def test_the_relative_error_is_a_share_of_the_teachers_variance() -> None:
    rng = np.random.default_rng(0)
    teacher = [rng.normal(3, scale, (2, 5)) for scale in (1.0, 100.0)]
    student = [values + 0.1 * values.std() for values in teacher]

    found = relative_error([torch.tensor(each) for each in student], [torch.tensor(each) for each in teacher])

    assert float(found) == pytest.approx(0.01)


def test_too_little_data_says_what_it_needs() -> None:
    with pytest.raises(DataError, match="training needs 2 others at least"):
        lesson(train=images(1)).divided()
