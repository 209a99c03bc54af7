"""Calibration data is divided: recipes are compared on samples that did not calibrate them."""

from __future__ import annotations

from pathlib import Path

import pytest

from qgate.engine.factory import FactoryDataset
from qgate.engine.heldout import divide
from qgate.errors import DataError


def dataset(size: int) -> FactoryDataset:
    return FactoryDataset([(index, f"target {index}") for index in range(size)], Path())


@pytest.mark.parametrize(
    ("size", "num_samples", "held_out"),
    [
        (128, 64, 64),  # what is left over
        (80, 64, 16),
        (79, 64, 26),  # 15 are left over, which is little: a third
        (90, None, 30),
        (1000, 64, 128),  # no more than tells enough
        (18, 18, 6),
    ],
)
def test_it_is_divided_into_two_parts_without_a_common_sample(
    size: int, num_samples: int | None, held_out: int
) -> None:
    calibration, compared = divide(dataset(size), num_samples, (), seed=0)

    inputs = [{part.sample(index).input for index in range(len(part))} for part in (calibration, compared)]
    assert len(compared) == held_out
    assert inputs[0].isdisjoint(inputs[1])
    assert inputs[0] | inputs[1] == set(range(size))


def test_too_little_data_is_an_error() -> None:
    with pytest.raises(DataError, match=r"has 17 samples.*needs at least 18"):
        divide(dataset(17), None, (), seed=0)


def test_what_the_gate_judges_by_is_never_held_out() -> None:
    data = dataset(40)
    judged = [data.fingerprint(index) for index in range(0, 40, 2)]

    _, compared = divide(data, 24, judged, seed=0)

    held_out = {compared.sample(index).input for index in range(len(compared))}
    assert len(held_out) == 16
    assert all(index % 2 for index in held_out)


def test_data_that_is_all_judged_by_is_too_little() -> None:
    data = dataset(40)

    with pytest.raises(DataError, match=r"needs at least 18 that are not evaluation samples"):
        divide(data, 24, [data.fingerprint(index) for index in range(40)], seed=0)
