"""Rows on disk are the rows that were appended."""

from __future__ import annotations

import numpy as np
import pytest

from qgate.spill import Spill

DTYPE = np.dtype([("key", "i4"), ("value", "f8")])


@pytest.fixture(params=[10, 1 << 20], ids=["on disk", "in memory"])
def many(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> list[np.ndarray]:
    """Parts of a table, some of them empty; what fits in memory is so little that there are files, or all."""
    monkeypatch.setattr("qgate.spill._IN_MEMORY", request.param)
    monkeypatch.setattr("qgate.spill._CHUNK", 7)
    random = np.random.default_rng(0)
    parts = [np.empty(size, DTYPE) for size in (3, 0, 50, 1, 20)]
    for part in parts:
        part["key"], part["value"] = random.choice([0, 2, 5], len(part)), random.random(len(part))
    return parts


def test_rows_come_back_in_order_also_between_appends(many: list[np.ndarray]) -> None:
    spill = Spill(DTYPE)
    for count, part in enumerate(many, start=1):
        spill.append(part)
        np.testing.assert_array_equal(spill.rows(), np.concatenate(many[:count]))
        assert len(spill) == sum(map(len, many[:count]))


def test_groups_are_those_of_a_stable_sort(many: list[np.ndarray]) -> None:
    spill = Spill(DTYPE)
    for part in many:
        spill.append(part)

    rows, bounds = spill.grouped("key")

    whole = np.concatenate(many)
    np.testing.assert_array_equal(rows, whole[np.argsort(whole["key"], kind="stable")])
    assert np.diff(bounds).tolist() == np.bincount(whole["key"]).tolist()


def test_nothing_appended_is_nothing() -> None:
    rows, bounds = Spill(DTYPE).grouped("key")

    assert len(rows) == len(Spill(DTYPE).rows()) == bounds.max() == 0
