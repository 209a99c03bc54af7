"""Text that others chose, names and paths and messages, made fit for where it is shown."""

from __future__ import annotations

import sys
from dataclasses import fields, is_dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar, cast

from qgate.files import write_atomically

if TYPE_CHECKING:
    from pathlib import Path

T = TypeVar("T")

KEPT_TOGETHER = "\N{NO-BREAK SPACE}"  # in pairs of a name and its figure
_CUT = "..."


def printable(text: str) -> str:
    """Give `text` on one line: what cannot be seen (controls, escapes, marks of direction) is spelled as in Python."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() or char == KEPT_TOGETHER else _spelled(char) for char in text)


def shortened(text: str, length: float) -> str:
    """Give `text`, its end cut off where it is longer than `length`."""
    return text if len(text) <= length else text[: int(length) - len(_CUT)] + _CUT


def is_drawable(encoding: str | None) -> bool:
    """Say whether an `encoding` (None: UTF-8) has characters to draw with, beyond ASCII's."""
    return (encoding or "utf-8").lower().startswith("utf")


def encodable(text: str, encoding: str | None) -> str:
    """Give `text` with what `encoding` (None: UTF-8) has no character for spelled as in Python."""
    encoding = encoding or "utf-8"
    if text.isascii():
        return text
    return text.encode(encoding, "backslashreplace").decode(encoding)


def spelled(value: T, encoding: str | None) -> T:
    """Give a value with each text in it made `encodable`, so that it is laid out as it will be written."""
    return cast("T", _spelled_out(value, encoding))


def _spelled_out(value: Any, encoding: str | None) -> Any:
    if isinstance(value, str):
        return encodable(value, encoding)
    if isinstance(value, dict):
        return {_spelled_out(key, encoding): _spelled_out(item, encoding) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_spelled_out(item, encoding) for item in value)
    if is_dataclass(value) and not isinstance(value, type):
        parts = {field.name: _spelled_out(getattr(value, field.name), encoding) for field in fields(value)}
        return replace(value, **parts)
    return value


def _spelled(char: str) -> str:
    return char.encode("unicode_escape").decode("ascii")


def write_text(text: str, destination: Path | None) -> None:
    """Write `text` to a file, atomically, or to standard output. Raises `OSError`."""
    if destination is None:
        sys.stdout.write(encodable(text, sys.stdout.encoding))
        sys.stdout.flush()
    else:
        write_atomically(destination, text.encode())
