from __future__ import annotations

import os
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from qgate.files import check_writable, write_atomically


def test_folders_are_made_and_content_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "file"

    write_atomically(path, b"old")
    write_atomically(path, b"new")

    assert path.read_bytes() == b"new"
    assert [entry.name for entry in path.parent.iterdir()] == ["file"]


@pytest.mark.parametrize("failing", ["fsync", "chmod", "replace"])
def test_a_failure_in_between_leaves_the_old_file_and_nothing_else(
    failing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os if failing == "fsync" else Path, failing, fail)
    with pytest.raises(OSError, match="No space left"):
        write_atomically(path, b"new")

    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


KILLED = """
import os, pathlib, signal, sys
from qgate.files import write_atomically
os.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL)
write_atomically(pathlib.Path(sys.argv[1]), b"new" * 100000)
"""


def test_a_process_killed_while_writing_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")

    done = subprocess.run([sys.executable, "-c", KILLED, path], cwd=Path(__file__).parents[2], check=False)

    assert done.returncode == -9
    assert path.read_bytes() == b"old"


@pytest.mark.parametrize("name", ["file", "file [1]*"])
def test_what_a_killed_write_left_is_removed_once_no_write_can_still_need_it(name: str, tmp_path: Path) -> None:
    temporaries = [tmp_path / f".{name}.aaaaaaaa.tmp", tmp_path / f".{name}.bbbbbbbb.tmp"]
    other_file = tmp_path / ".other.cccccccc.tmp"
    for path, hours in zip((*temporaries, other_file), (2, 0.5, 2), strict=True):
        path.write_bytes(b"part")
        os.utime(path, (time.time() - hours * 3600,) * 2)

    write_atomically(tmp_path / name, b"new")

    assert {entry.name for entry in tmp_path.iterdir()} == {name, temporaries[1].name, other_file.name}


@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_others_may_read_it_as_the_umask_says(mask: int, mode: int, tmp_path: Path) -> None:
    former = os.umask(mask)
    try:
        write_atomically(tmp_path / "file", b"x")
        assert os.umask(mask) == mask
    finally:
        os.umask(former)

    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == mode


def test_a_folder_in_its_place_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").mkdir()

    with pytest.raises(OSError, match="directory"):
        write_atomically(tmp_path / "file", b"x")
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("name", ["file", "old", "a/b/file"])
def test_what_can_be_written_is_told_without_a_trace(name: str, tmp_path: Path) -> None:
    (tmp_path / "old").write_bytes(b"old")

    check_writable(tmp_path / name)

    assert [(entry.name, entry.read_bytes()) for entry in tmp_path.iterdir()] == [("old", b"old")]
    write_atomically(tmp_path / name, b"new")


@pytest.mark.parametrize("name", ["folder", "file/name", "file/a/b/name", "/proc/name"])
def test_what_cannot_be_written_is_told_before_it_is_tried(name: str, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_bytes(b"old")

    with pytest.raises(OSError, match=r"."):
        write_atomically(tmp_path / name, b"new")
    with pytest.raises(OSError, match=r"."):
        check_writable(tmp_path / name)
