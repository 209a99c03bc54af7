"""Values as JSON and bytes, and back, without pickle: what predictions and graphs are made of."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from qgate.local_plugin import stable_module_name

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import torch

__all__ = ["Packer", "UnstorableError", "class_name", "dataclasses_in", "unpack"]

_PLAIN = (type(None), bool, int, float, str)
_NUMBERS = "biufc"  # kinds of numpy's types that are bytes and nothing else; and two of fixed length:
_TEXTS = "US"

Array = NDArray[Any]


class UnstorableError(Exception):
    """A value is of a type that is not stored; caught in this package."""


class Packer:
    """Encodes values as what JSON holds; the bytes of their arrays lie end to end in `blob`.

    Takes None, numbers, strings, bytes, lists, tuples, dictionaries, numpy's and torch's arrays of numbers, and
    dataclasses of such: of these very types, not of types derived from them, which may mean something else.
    """

    def __init__(self) -> None:
        import torch  # not above: who only unpacks, a report, need not wait for it

        self.blob = bytearray()
        self._kinds: dict[type, Callable[[Any], Any]] = {
            list: lambda value: [self.pack(item) for item in value],
            tuple: lambda value: {"tuple": [self.pack(item) for item in value]},
            dict: lambda value: {"dict": [[self.pack(key), self.pack(item)] for key, item in value.items()]},
            bytes: lambda value: {"bytes": self._array(np.frombuffer(value, np.uint8))},
            np.ndarray: lambda value: {"array": self._array(value)},
            torch.Tensor: lambda value: {"tensor": self._array(_as_array(value))},
        }

    def pack(self, value: Any) -> Any:
        """Encode one value. Raises `UnstorableError`."""
        kind = type(value)
        if kind in _PLAIN:
            return value
        if kind in self._kinds:
            return self._kinds[kind](value)
        if isinstance(value, np.generic):
            return {"scalar": self._array(np.asarray(value))}
        if is_dataclass(value) and not isinstance(value, type):
            return self._dataclass(value)
        raise UnstorableError(f"{kind.__module__}.{kind.__qualname__}")

    def _array(self, value: Array) -> list[Any]:
        if value.dtype.kind not in _NUMBERS + _TEXTS:
            raise UnstorableError(f"an array of {value.dtype}")
        begin = len(self.blob)
        self.blob += np.ascontiguousarray(value).tobytes()
        return [value.dtype.str, list(value.shape), begin]

    def _dataclass(self, value: Any) -> dict[str, Any]:
        kind, names = type(value), [item.name for item in fields(value)]
        if not all(item.init for item in fields(value)) or set(getattr(value, "__dict__", names)) != set(names):
            raise UnstorableError(f"{class_name(kind)}, which its fields do not make")
        return {"dataclass": [class_name(kind), {name: self.pack(getattr(value, name)) for name in names}]}


def unpack(document: Any, blob: bytes, classes: Mapping[str, type]) -> Any:
    """Decode what a `Packer` encoded; of dataclasses, only those in `classes`, as `dataclasses_in` gives them.

    Raises `KeyError` for another dataclass, and `ValueError`, `TypeError` or `LookupError` for what no packer wrote.
    """
    if isinstance(document, list):
        return [unpack(item, blob, classes) for item in document]
    if not isinstance(document, dict):
        return document
    ((kind, content),) = document.items()
    if kind == "tuple":
        return tuple(unpack(item, blob, classes) for item in content)
    if kind == "dict":
        return {unpack(key, blob, classes): unpack(item, blob, classes) for key, item in content}
    if kind == "dataclass":
        name, values = content
        return classes[name](**{key: unpack(item, blob, classes) for key, item in values.items()})
    return _ARRAYS[kind](content, blob)


def dataclasses_in(value: Any) -> dict[str, type]:
    """Give the dataclasses that a value is made of, by the names by which they are stored."""
    if isinstance(value, list | tuple):
        parts = list(value)
    elif isinstance(value, dict):
        parts = [*value.keys(), *value.values()]
    elif is_dataclass(value) and not isinstance(value, type):
        parts = [getattr(value, item.name) for item in fields(value)]
    else:
        return {}
    found = {class_name(type(value)): type(value)} if is_dataclass(value) else {}
    return {name: kind for part in parts for name, kind in dataclasses_in(part).items()} | found


def _as_array(value: torch.Tensor) -> Array:
    try:
        array: Array = value.detach().numpy()
    except (RuntimeError, TypeError) as error:  # bfloat16, sparse, quantized, or not in this memory
        raise UnstorableError(f"a tensor of {value.dtype}, {value.layout}, on {value.device}") from error
    return array


def _unpack_array(content: Any, blob: bytes) -> Array:
    name, shape, begin = content
    dtype = np.dtype(name)
    if dtype.kind not in _NUMBERS + _TEXTS or begin < 0 or min(shape, default=0) < 0:
        raise ValueError(f"an array of {name}")
    array: Array = np.empty(shape, dtype)  # of its own memory: it may be written to, and outlives the rest
    if array.size:
        array[...] = np.frombuffer(blob, dtype, array.size, begin).reshape(shape)
    return array


def _unpack_scalar(content: Any, blob: bytes) -> Any:
    return _unpack_array(content, blob)[()]


def _unpack_tensor(content: Any, blob: bytes) -> torch.Tensor:
    import torch

    return torch.from_numpy(_unpack_array(content, blob))


def _unpack_bytes(content: Any, blob: bytes) -> bytes:
    return _unpack_array(content, blob).tobytes()


_ARRAYS: dict[str, Callable[[Any, bytes], Any]] = {
    "array": _unpack_array,
    "bytes": _unpack_bytes,
    "scalar": _unpack_scalar,
    "tensor": _unpack_tensor,
}


def class_name(kind: type) -> str:
    """Give the name by which a dataclass is stored, the same in every process."""
    return f"{stable_module_name(kind.__module__)}:{kind.__qualname__}"
