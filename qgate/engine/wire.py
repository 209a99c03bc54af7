"""Values as bytes, for other processes: JSON and arrays, never a pickle."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from qgate import errors
from qgate.engine.storable import Packer, unpack

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["error_of", "from_bytes", "said_of", "to_bytes"]

_LENGTH = 8


def to_bytes(value: Any) -> bytes:
    """Encode what a `Packer` takes. Raises `UnstorableError`."""
    packer = Packer()
    document = json.dumps(packer.pack(value)).encode()
    return len(document).to_bytes(_LENGTH, "little") + document + bytes(packer.blob)


def from_bytes(content: bytes, classes: Mapping[str, type] | None = None) -> Any:
    """Decode what `to_bytes` gave; of dataclasses, only those in `classes`, as `dataclasses_in` gives them."""
    end = _LENGTH + int.from_bytes(content[:_LENGTH], "little")
    return unpack(json.loads(content[_LENGTH:end]), content[end:], classes or {})


def said_of(error: errors.QGateError) -> list[Any]:
    """Say all of an error, JSON-able."""
    return [type(error).__name__, error.message, None if error.path is None else str(error.path), error.line]


def error_of(name: str, message: str, path: str | None, line: int | None) -> errors.QGateError:
    """Give the error of which `said_of` told."""
    kind: Any = getattr(errors, name, errors.PluginError)  # a plugin may have a subclass of its own
    error: errors.QGateError = kind(message, path=path, line=line)
    return error
