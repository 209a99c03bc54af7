from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from torch import nn

from qgate.engine.factory import FactoryDataset, FactoryLoader, FactoryOptions
from qgate.errors import ConfigError, DataError, ModelError
from qgate.protocols import LoadedModel, Sample

if TYPE_CHECKING:
    from pathlib import Path

SOURCE = """
import torch
from torch import nn

def model():
    return nn.Dropout(), torch.zeros(1, 3)

def two_inputs():
    return nn.Bilinear(2, 2, 2), (torch.zeros(1, 2), torch.zeros(1, 2))

def bare():
    return nn.ReLU()

def number():
    return 3
"""


@pytest.fixture(autouse=True)
def factories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "factories_of_a_test.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(tmp_path)


def load(name: str) -> LoadedModel:
    return FactoryLoader().load(FactoryOptions(f"factories_of_a_test:{name}"))


def test_a_module_and_its_example_input() -> None:
    loaded = load("model")

    assert isinstance(loaded.module, nn.Dropout)
    assert not loaded.module.training
    assert loaded.example_inputs[0].shape == (1, 3)
    assert load("two_inputs").example_inputs[1].shape == (1, 2)


def test_a_sample_becomes_a_batch_of_one_and_an_output_the_prediction() -> None:
    loaded = load("model")

    (batch,), context = loaded.preprocess(np.ones(3, np.float32))

    assert batch.shape == (1, 3)
    assert loaded.postprocess("output", context) == "output"


@pytest.mark.parametrize(("name", "returned"), [("bare", "ReLU"), ("number", "int")])
def test_a_function_that_returns_no_model_is_an_error(name: str, returned: str) -> None:
    with pytest.raises(
        ModelError, match=rf'"factories_of_a_test:{name}" returned {returned}; expected qgate\.LoadedMod'
    ):
        load(name)


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("factories_of_a_test", 'must be "package.module:function"'),
        (":model", 'must be "package.module:function"'),
        ("nowhere_at_all:model", "No module named 'nowhere_at_all'; is it in the folder of qgate.toml or installed"),
        ("factories_of_a_test:modle", "has no attribute 'modle'"),
    ],
)
def test_a_function_that_is_not_there_is_an_error(path: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said.replace(".", r"\.")) as caught:
        FactoryLoader().load(FactoryOptions(path))
    assert path in str(caught.value)


def data(*items: Any) -> FactoryDataset:
    return FactoryDataset(items, "m:f")


def test_pairs_and_samples_are_samples() -> None:
    dataset = data((1.0, "cat"), Sample("photo", 2.0, "dog"))

    assert [dataset.sample(index) for index in range(2)] == [Sample("0", 1.0, "cat"), Sample("photo", 2.0, "dog")]
    assert [dataset.sample_id(index) for index in range(2)] == ["0", "photo"]


def test_another_item_is_an_error_that_names_it() -> None:
    with pytest.raises(DataError, match='item 1 of factory "m:f" is str; expected'):
        data((1.0, 2), "three").sample(1)


def test_something_that_is_no_sequence_is_an_error() -> None:
    with pytest.raises(DataError, match="returned int; expected a sequence"):
        FactoryDataset.open(FactoryOptions("factories_of_a_test:number"), class_names=(), require_targets=True)


@pytest.mark.parametrize(
    ("target", "stratum"),
    [(3, {"3"}), ("cat", {"cat"}), (np.int64(3), {"3"}), (torch.tensor(3), {"3"}), (2.5, set()), (None, set())],
)
def test_a_class_is_its_samples_stratum(target: object, stratum: set[str]) -> None:
    assert data((1.0, target)).strata(0) == stratum


def test_equal_content_has_an_equal_fingerprint() -> None:
    image = np.arange(6, dtype=np.uint8)
    dataset = data((image, 0), (image.copy(), 1), (image[::-1].copy(), 0), (image.reshape(2, 3), 0), (image * 1.0, 0))

    prints = [dataset.fingerprint(index) for index in range(5)]

    assert prints[0] == prints[1]
    assert len(set(prints)) == 4


def test_a_fingerprint_is_of_the_content_whatever_an_input_is_made_of() -> None:
    image = np.arange(6.0)
    dataset = data(
        ({"image": image, "gain": 2}, 0),
        ({"gain": 2, "image": torch.arange(6.0, dtype=torch.float64)}, 1),
        ({"image": image + 1, "gain": 2}, 0),
        ([image, image], 0),
        ([image.copy(), image.copy()], 0),
    )

    prints = [dataset.fingerprint(index) for index in range(5)]

    assert prints[0] == prints[1]
    assert prints[3] == prints[4]
    assert len(set(prints)) == 3
