"""JSON and bytes as the content of one file, under a checksum."""

from __future__ import annotations

import hashlib
import json
from typing import Any

__all__ = ["seal", "unseal"]

_HASH_BYTES = 32
_LENGTH_BYTES = 8


def seal(magic: bytes, document: Any, blob: bytes) -> bytes:
    """Give the content of a file of the kind that `magic` names."""
    text = json.dumps(document).encode()
    body = len(text).to_bytes(_LENGTH_BYTES, "little") + text + blob
    return magic + hashlib.sha256(body).digest() + body


def unseal(magic: bytes, content: bytes) -> tuple[Any, bytes]:
    """Undo `seal`. Raises `ValueError` where a bit is not as it was, or the file is of another kind."""
    begin = len(magic) + _HASH_BYTES
    body = content[begin:]
    if content[:begin] != magic + hashlib.sha256(body).digest():
        raise ValueError("damaged")
    end = _LENGTH_BYTES + int.from_bytes(body[:_LENGTH_BYTES], "little")
    return json.loads(body[_LENGTH_BYTES:end]), body[end:]
