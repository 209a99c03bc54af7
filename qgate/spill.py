"""Rows that may be more than memory should hold."""

from __future__ import annotations

import tempfile
import weakref
from typing import IO, TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import DTypeLike, NDArray

__all__ = ["Spill"]

_IN_MEMORY = 1 << 20  # bytes
_CHUNK = 1 << 16  # rows


class Spill:
    """Rows of one structured type, appended in order; beyond a megabyte they lie in a temporary file.

    The file has no name, so the system removes it however the process ends. It is where `tempfile` puts files: TMPDIR
    says where, and should be a disk.
    """

    def __init__(self, dtype: DTypeLike) -> None:
        self.dtype = np.dtype(dtype)
        self._waiting: list[NDArray[Any]] = []
        self._num_waiting = self._num_written = 0
        self._file: IO[bytes] | None = None

    def __len__(self) -> int:
        return self._num_written + self._num_waiting

    def append(self, rows: NDArray[Any]) -> None:
        """Take in rows."""
        self._waiting.append(rows)
        self._num_waiting += len(rows)
        if self._num_waiting * self.dtype.itemsize > _IN_MEMORY:
            self._write()

    def rows(self) -> NDArray[Any]:
        """Give all rows, not to be written to: memory-mapped where they lie in a file."""
        if self._file is None:
            self._waiting = [np.concatenate([np.empty(0, self.dtype), *self._waiting])]
            return self._waiting[0]
        self._write()
        return np.memmap(self._file, self.dtype, "r", shape=(self._num_written,))

    def chunks(self) -> Iterator[NDArray[Any]]:
        """Give all rows in parts that fit in memory."""
        rows = self.rows()
        return (np.asarray(rows[begin : begin + _CHUNK]) for begin in range(0, len(rows), _CHUNK))

    def grouped(self, key: str) -> tuple[NDArray[Any], NDArray[np.int64]]:
        """Give the rows by the value of a column, 0, 1, 2, ..., and where each value's begin, and the last one's end.

        Rows of one value keep their order. They may be written to, and lie in a file of their own where they are many.
        """
        counts = np.zeros(1, dtype=np.int64)
        for chunk in self.chunks():
            found = np.bincount(chunk[key])
            counts = _padded(counts, len(found))
            counts[: len(found)] += found
        bounds = np.append(0, np.cumsum(counts))
        grouped, free = _empty(len(self), self.dtype), bounds[:-1].copy()
        for chunk in self.chunks():
            order = np.argsort(chunk[key], kind="stable")
            values = chunk[key][order]
            first = np.searchsorted(values, values)  # of each value in the chunk
            grouped[free[values] + np.arange(len(values)) - first] = chunk[order]
            found = np.bincount(values)
            free[: len(found)] += found
        return grouped, bounds

    def _write(self) -> None:
        if self._file is None:
            self._file = tempfile.TemporaryFile(prefix="qgate-")  # noqa: SIM115  # open as long as this object lives
            weakref.finalize(self, self._file.close)
        self._file.seek(0, 2)
        for rows in self._waiting:
            self._file.write(np.ascontiguousarray(rows).tobytes())
        self._file.flush()
        self._num_written += self._num_waiting
        self._waiting, self._num_waiting = [], 0


def _padded(counts: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    return np.pad(counts, (0, max(0, size - len(counts))))


def _empty(size: int, dtype: np.dtype[Any]) -> NDArray[Any]:
    if size * dtype.itemsize <= _IN_MEMORY:
        return np.empty(size, dtype)
    with tempfile.TemporaryFile(prefix="qgate-") as file:  # mapped, it stays until nobody reads it any more
        return np.memmap(file, dtype, "w+", shape=(size,))
