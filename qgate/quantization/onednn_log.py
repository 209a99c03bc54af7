"""Which implementations oneDNN runs, as it says itself: on the process's standard output, and nowhere else."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from typing import IO, TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["onednn_log"]

_STDOUT = 1
_MARK = b"onednn_verbose,"


@contextlib.contextmanager
def onednn_log() -> Iterator[Callable[[], list[str]]]:
    """Give what lists the implementations that oneDNN has run since it was last asked: `brgconv:avx512_core_vnni`.

    Meanwhile the descriptor of standard output, wherever it leads, is a file; what others wrote to it is handed on in
    the end. The list is empty where there is no oneDNN or no such descriptor. Copies between layouts are left out.
    """
    with contextlib.ExitStack() as stack:
        try:
            log = stack.enter_context(tempfile.TemporaryFile())
            stack.enter_context(_stdout_to(log))
        except OSError:  # standard output is closed, or there is nowhere to write to
            yield list
            return
        if torch.backends.mkldnn.is_available():
            stack.enter_context(torch.backends.mkldnn.verbose(torch.backends.mkldnn.VERBOSE_ON))
        yield _Reader(log)


@contextlib.contextmanager
def _stdout_to(log: IO[bytes]) -> Iterator[None]:
    _flush_stdout()
    kept = os.dup(_STDOUT)
    try:
        os.dup2(log.fileno(), _STDOUT)
        yield
    finally:
        _flush_stdout()
        os.dup2(kept, _STDOUT)
        os.close(kept)
        _hand_on(log)


def _flush_stdout() -> None:
    with contextlib.suppress(AttributeError, OSError, ValueError):  # it may be absent, broken or closed
        sys.stdout.flush()


def _hand_on(log: IO[bytes]) -> None:
    log.seek(0)
    others = b"".join(line for line in log if not line.startswith(_MARK))
    if others:
        os.write(_STDOUT, others)


class _Reader:
    """Reads on in a log where it last stopped."""

    def __init__(self, log: IO[bytes]) -> None:
        self.log = log
        self.position = 0

    def __call__(self) -> list[str]:
        descriptor = self.log.fileno()
        text = os.pread(descriptor, os.fstat(descriptor).st_size - self.position, self.position)
        self.position += len(text)
        return [name for line in text.splitlines() for name in _implementations(line)]


def _implementations(line: bytes) -> Iterator[str]:
    """Give the implementation that a line names, e.g. `onednn_verbose,v1,primitive,exec,cpu,convolution,jit:avx2,...`.

    Source: oneDNN developer guide, "Verbose mode": template operation, engine, primitive, implementation.
    """
    fields = line.decode(errors="replace").split(",")
    if line.startswith(_MARK) and "exec" in fields:
        primitive, implementation = [*fields[fields.index("exec") + 2 :], "", ""][:2]
        if primitive and primitive != "reorder":
            yield implementation
