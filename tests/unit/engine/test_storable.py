"""What is stored comes back as it was; what may mean more than can be stored is refused."""

from __future__ import annotations

import importlib.util
import json
import math
import subprocess
import sys
from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

from qgate.engine.storable import Packer, UnstorableError, dataclasses_in, unpack
from qgate.engine.wire import from_bytes
from qgate.local_plugin import load_local_plugin


@dataclass(frozen=True)
class Found:
    boxes: Any
    names: Any = ()


@dataclass
class Counted:
    values: Any
    total: int = field(init=False, default=0)


@dataclass
class Slotted:
    __slots__ = ("value",)
    value: Any


class Pair(NamedTuple):
    left: int
    right: int


class Floats(np.ndarray):
    pass


def through(value: Any) -> Any:
    """Store and read a value, by way of JSON text."""
    packer = Packer()
    document = json.loads(json.dumps(packer.pack(value)))
    return unpack(document, bytes(packer.blob), dataclasses_in(value))


def same(left: Any, right: Any) -> bool:
    """Compare types and contents, all the way down."""
    return type(left) is type(right) and _same(_parts(left), _parts(right))


def _same(left: Any, right: Any) -> bool:
    if isinstance(left, list):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, np.ndarray | np.generic):
        return left.dtype == right.dtype and np.array_equal(left, right, equal_nan=left.dtype.kind in "fc")
    return bool(left == right) or (isinstance(left, float) and math.isnan(left) and math.isnan(right))


def _parts(value: Any) -> Any:
    """Give what a value is made of as a list, or a tensor's array; any other value as it is."""
    if isinstance(value, dict):
        return [*value.keys(), *value.values()]
    if isinstance(value, Found):
        return [value.boxes, value.names]
    if isinstance(value, Slotted):
        return [value.value]
    if isinstance(value, torch.Tensor):
        return value.numpy()
    return list(value) if isinstance(value, list | tuple) else value


RNG = np.random.default_rng(0)
VALUES = [
    None,
    True,
    -(2**70),
    0.1,
    math.inf,
    math.nan,
    "é\n",
    b"",
    b"\x00bytes",
    [1, [2.0, None]],
    (1, (2, [3])),
    {"a": 1, 2: {"b": (3,)}, (4, 5): "c", None: 0},
    np.float32(0.1),
    np.int64(2**60),
    np.bool_(True),
    *(RNG.normal(0, 99, (3, 4)).astype(kind) for kind in ("f2", "f4", "f8", ">f4", "i1", "u1", "i8", "c8")),
    RNG.random((2, 3)) > 0.5,
    np.array(7.0),
    np.zeros((0, 4), np.float32),
    np.arange(24).reshape(2, 3, 4).transpose(2, 0, 1)[::2],
    np.array(["cat", "dog"]),
    torch.arange(6).reshape(2, 3),
    torch.randn(3, requires_grad=True).detach(),
    torch.tensor(True),
    Found(RNG.normal(size=(5, 4)), ("a", {"b": torch.ones(2)})),
    [Found(Found(1)), Slotted(np.arange(3))],
]


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_a_value_comes_back_as_it_was(value: Any) -> None:
    assert same(through(value), value)


def test_an_array_that_comes_back_can_be_written_to() -> None:
    first, second = through([np.zeros(2), np.zeros(2)])
    first += 1

    assert second.tolist() == [0, 0]


CONFTEST = """
from dataclasses import dataclass

@dataclass(frozen=True)
class Box:
    side: int
"""
STORE = """
import sys
from pathlib import Path
from qgate.engine.wire import to_bytes
from qgate.local_plugin import load_local_plugin

((plugin, _),) = load_local_plugin(Path(sys.argv[1]))
sys.stdout.buffer.write(to_bytes(plugin.Box(3)))
"""


def test_a_dataclass_of_a_conftest_is_known_to_another_process_and_to_pytest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "conftest.py").write_text(CONFTEST)
    monkeypatch.setattr(sys, "path", [*sys.path])
    stored = subprocess.run([sys.executable, "-c", STORE, tmp_path], capture_output=True, check=True).stdout
    ((plugin, _),) = load_local_plugin(tmp_path)
    spec = importlib.util.spec_from_file_location("conftest", tmp_path / "conftest.py")
    of_pytest = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "conftest", of_pytest)
    spec.loader.exec_module(of_pytest)

    for box in (plugin.Box, of_pytest.Box):
        assert from_bytes(stored, dataclasses_in(box(0))) == box(3)


with_more = Found(1)
object.__setattr__(with_more, "note", "that no field holds")

UNSTORABLE = [
    object(),
    lambda: None,
    {1, 2},
    Path("x"),
    OrderedDict(a=1),
    Pair(1, 2),
    Found,
    np.array([object()]),
    np.array([(1, 2.0)], dtype=[("a", "i4"), ("b", "f4")]),
    np.zeros(2).view(Floats),
    torch.zeros(2, dtype=torch.bfloat16),
    torch.zeros(2).to_sparse(),
    torch.nn.Parameter(torch.zeros(2)),
    Counted(1),
    with_more,
]


@pytest.mark.parametrize("value", UNSTORABLE, ids=lambda value: type(value).__name__)
@pytest.mark.parametrize("wrap", [lambda value: value, lambda value: Found([{"a": value}])], ids=["bare", "within"])
def test_what_cannot_be_given_back_as_it_was_is_refused(value: Any, wrap: Any) -> None:
    with pytest.raises(UnstorableError):
        Packer().pack(wrap(value))


def test_only_dataclasses_that_are_expected_are_made() -> None:
    document = Packer().pack([Found(1)])

    with pytest.raises(KeyError, match="Found"):
        unpack(document, b"", dataclasses_in([Slotted(1)]))


CRAFTED = [
    {"dataclass": ["os:system", {"command": "touch ran"}]},
    {"array": ["O", [1], 0]},
    {"array": ["<f4", [3], 0]},
    {"array": ["<f4", [-1], 0]},
    {"array": ["<f4", [1], -4]},
    {"array": ["V8", [1], 0]},
    {"array": "?"},
    {"scalar": ["<f4", [1, 2, 3], 0]},
    {"pickle": "x"},
    {"tuple": 1},
    {"tuple": [], "dict": []},
    {},
]


@pytest.mark.parametrize("document", CRAFTED, ids=str)
def test_what_no_packer_wrote_is_refused(document: Any) -> None:
    with pytest.raises((LookupError, TypeError, ValueError)):
        unpack(document, bytes(8), {})
