"""Results of earlier runs in a folder: found by what they are of, bounded in size, trusted only where whole."""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from qgate.engine.sealed import seal, unseal
from qgate.files import STALE_SECONDS, write_atomically

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

__all__ = ["Cache", "Entry", "Key"]

_MAGIC = b"qgate-cache-1\n"
_SUFFIX = ".entry"

Key = dict[str, Any]


@dataclass(frozen=True)
class Entry:
    """What was stored: a JSON-able document, the bytes that it speaks of, and when it was computed (ISO 8601)."""

    document: Any
    blob: bytes
    created: str


class Cache:
    """Entries in one folder, one file each, which several processes may use at a time.

    A key is JSON-able and says all that an entry depends on; it is stored with the entry and compared. A file that is
    damaged, or that is of something else, is no entry. With more than `max_bytes`, those used longest ago go; with a
    bound of 0 nothing is stored.
    """

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self.folder = folder
        self.max_bytes = max_bytes

    def get(self, key: Key) -> Entry | None:
        """Give the entry of a key; None where there is none that is whole."""
        path = self._path(key)
        try:
            described, blob = unseal(_MAGIC, path.read_bytes())
            entry = Entry(described["document"], blob, described["created"])
            if described["key"] != _plain(key):
                return None
        except (OSError, ValueError, TypeError, LookupError):
            return None
        with contextlib.suppress(OSError):  # of a read-only folder, entries are still good
            path.touch()
        return entry

    def put(self, key: Key, document: Any, blob: bytes) -> None:
        """Store an entry whole or not at all. Raises `OSError` where the folder refuses."""
        created = datetime.now(timezone.utc).isoformat(timespec="seconds")
        content = seal(_MAGIC, {"key": key, "created": created, "document": document}, blob)
        if len(content) <= self.max_bytes:
            write_atomically(self._path(key), content)
            self._evict()

    def _path(self, key: Key) -> Path:
        name = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
        return self.folder / f"{name}{_SUFFIX}"

    def _evict(self) -> None:
        """Remove what was used longest ago, as far as the bound demands, and what killed writes have left."""
        entries = sorted(_statuses(self.folder.glob(f"*{_SUFFIX}")))
        total = sum(size for _, size, _ in entries)
        for _, size, path in entries:
            if total <= self.max_bytes:
                break
            _remove(path)
            total -= size
        for written, _, path in _statuses(self.folder.glob(".*.tmp")):
            if time.time() - written > STALE_SECONDS:
                _remove(path)


def _statuses(paths: Iterable[Path]) -> Iterator[tuple[float, int, Path]]:
    """Give when each file was written or used last, and its size; a concurrent run may remove some meanwhile."""
    for path in paths:
        with contextlib.suppress(OSError):
            status = path.stat()
            yield status.st_mtime, status.st_size, path


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink()


def _plain(key: Key) -> Any:
    """Give a key as JSON gives it back."""
    return json.loads(json.dumps(key))
