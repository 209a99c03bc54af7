"""Writing files so that a reader sees the old content or the new one, never a part."""

from __future__ import annotations

import contextlib
import errno
import glob
import os
import tempfile
from pathlib import Path

STALE_SECONDS = 3600.0  # no write takes that long, so an older temporary file is not a concurrent run's


def write_atomically(path: Path, content: bytes) -> None:
    """Replace the content of `path`, creating its folders. Raises `OSError`, and then leaves the old file as it was.

    A process that is killed while it writes leaves a temporary file beside `path`; a later write removes it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        Path(temporary).chmod(0o666 & ~_umask())
        Path(temporary).replace(path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            Path(temporary).unlink()
        raise
    _remove_stale(path)


def check_writable(path: Path) -> None:
    """Raise the `OSError` that `write_atomically` would, as far as can be told; neither file nor folder is made."""
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    folder = next(folder for folder in path.absolute().parents if folder.exists())
    tempfile.TemporaryFile(dir=folder).close()  # permissions alone say nothing to root, nor of a read-only disk


def _remove_stale(path: Path) -> None:
    """Remove the temporary files of `path` that are much older than itself."""
    with contextlib.suppress(OSError):  # a concurrent run removes them too
        newest = path.lstat().st_mtime
        for temporary in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
            if newest - temporary.lstat().st_mtime > STALE_SECONDS:
                temporary.unlink()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
