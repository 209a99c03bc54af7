"""Text that others chose, names and paths and messages, made fit for where it is shown."""

from __future__ import annotations

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
    return text.encode(encoding, "backslashreplace").decode(encoding)


def _spelled(char: str) -> str:
    return char.encode("unicode_escape").decode("ascii")
