from __future__ import annotations

import enum
import itertools
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from qgate.config.model import ObserverConfig, Place, QuantizationConfig, TrainingConfig
from qgate.engine.digest import digest, evaluator_settings, relevant


@dataclass
class Box:
    corner: tuple[int, int]
    name: str = "cat"


class Plain:
    def __init__(self, value: object) -> None:
        self.value = value


class Label(enum.Enum):
    CAT = 1
    DOG = 2


RAMP = np.arange(6, dtype=np.float32)
EQUAL = {
    "arrays": (RAMP, RAMP.copy()),
    "a tensor is its array": (RAMP, torch.arange(6, dtype=torch.float32)),
    "a tensor with a gradient": (RAMP, torch.arange(6, dtype=torch.float32, requires_grad=True)),
    "a view is its values": (RAMP[::2], RAMP[::2].copy()),
    "a transposed tensor": (RAMP.reshape(2, 3).T, torch.arange(6.0).reshape(2, 3).T),
    "NaN is NaN": (np.array([np.nan]), np.array([np.nan])),
    "keys in any order": ({"a": 1, "b": [2]}, {"b": [2], "a": 1}),
    "sets in any order": ({"cat", "dog", "cow"}, {"cow", "dog", "cat"}),
    "dataclasses": (Box((1, 2)), Box((1, 2), "cat")),
    "objects": (Plain([1]), Plain([1])),
    "objects in containers": ({"x": [Plain(RAMP)]}, {"x": [Plain(RAMP.copy())]}),
    "members of an enumeration": (Label.CAT, Label(1)),
}


@pytest.mark.parametrize("case", EQUAL)
def test_equal_content_has_an_equal_digest(case: str) -> None:
    one, other = EQUAL[case]

    assert digest(one) == digest(other)


DIFFERENT: dict[str, list[Any]] = {
    "values": [RAMP, RAMP + 1, RAMP[::-1]],
    "types of elements": [RAMP, RAMP.astype(np.float64), RAMP.astype(np.int32), RAMP.astype(np.int64)],
    "shapes": [RAMP, RAMP.reshape(2, 3), RAMP.reshape(3, 2), RAMP.reshape(1, 6), RAMP[:5]],
    "bits of zero": [np.array([0.0]), np.array([-0.0])],
    "empty": [[], {}, "", b"", None, (), set(), np.zeros(0), np.zeros((0, 4))],
    "scalars": [1, True, 1.0, "1", b"1", None, "None", "True"],
    "order": [[1, 2], [2, 1]],
    "nesting": [[1, [2, 3]], [[1, 2], 3], [1, 2, 3], [[1, 2, 3]], [[1], [2], [3]]],
    "where text is cut": [["ab", "c"], ["a", "bc"], ["abc"], ["ab", "c", ""], ["1:a", "b"], ["1:a1:b"]],
    "where arrays are cut": [[RAMP[:2], RAMP[2:]], [RAMP[:3], RAMP[3:]], [RAMP]],
    "keys and values": [{"a": "b"}, {"b": "a"}, {"ab": ""}, {"a": "b", "": ""}, [("a", "b")]],
    "values of keys": [{"a": 1, "b": 2}, {"a": 2, "b": 1}],
    "fields": [Box((1, 2)), Box((2, 1)), Box((1, 2), "dog"), SimpleNamespace(corner=(1, 2), name="cat")],
    "attributes": [Plain(1), Plain(2), Plain("1")],
    "members": [Label.CAT, Label.DOG, "Label.CAT"],
    "arrays of objects": [np.array(["a", None], object), np.array(["a", "b"], object), np.array(["ab", None], object)],
}


@pytest.mark.parametrize("case", DIFFERENT)
def test_different_content_has_a_different_digest(case: str) -> None:
    for one, other in itertools.combinations(DIFFERENT[case], 2):
        assert digest(one) != digest(other), (one, other)


def test_a_digest_is_the_same_in_another_process() -> None:
    code = (
        "import numpy as np; from qgate.engine.digest import digest;"
        "print(digest({'names': {'cat', 'dog', 'cow'}, 'boxes': [np.arange(4.0)], 'crowd': None, 'x': 0.1}))"
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }

    assert found == {
        digest({"names": {"cat", "dog", "cow"}, "boxes": [np.arange(4.0)], "crowd": None, "x": 0.1}) + "\n"
    }


@dataclass(frozen=True)
class Cut:
    weights: Path
    top: int = 0


@dataclass(frozen=True)
class Options:
    weights: Path
    tables: tuple[Path, ...] = ()
    cut: Cut = field(default_factory=lambda: Cut(Path("a")))
    image_size: int = 640
    size: tuple[int, int] = (1, 2)
    conf: float = 0.001


def test_the_settings_of_an_evaluator_are_all_options_that_are_no_paths() -> None:
    settings = evaluator_settings(Options(Path("/here/a.pt"), (Path("/here/b"),), Cut(Path("/here/c"), 3)))

    assert settings["image_size"] == 640
    assert settings["conf"] == 0.001
    assert settings["size"] == [1, 2]  # as JSON gives it back
    assert settings["cut"]["top"] == 3
    assert "/here" not in repr(settings)  # the same project in another folder


def test_where_a_recipe_is_said_is_irrelevant_but_all_that_plugins_are_told() -> None:
    @dataclass
    class Augmentation:
        place: str

    def recipe(line: int = 1, seconds: float = 600.0, **told: Any) -> QuantizationConfig:
        observer = ObserverConfig("mine", {"fallback": told.get("fallback", 0)})
        training = TrainingConfig(augment=Augmentation(told.get("place", "left")))
        place = Place(Path("qgate.toml"), line)
        return QuantizationConfig(place, activation=observer, rounding_seconds=seconds, training=training)

    same = digest(relevant(recipe()))
    assert digest(relevant(recipe(line=2, seconds=5.0))) == same
    assert digest(relevant(recipe(fallback=1))) != same
    assert digest(relevant(recipe(place="right"))) != same
