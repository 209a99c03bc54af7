"""Entries in a folder: whole or none, and no more of them than the bound allows."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from qgate.engine.cache import Cache

if TYPE_CHECKING:
    from pathlib import Path

MUCH = 10**6


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache", MUCH)


def key(number: int) -> dict[str, object]:
    return {"kind": "number", "number": number, "of": ["a", {"b": None}]}


def put(cache: Cache, number: int, size: int = 100) -> Path:
    """Store an entry and give its file."""
    before = set(cache.folder.glob("*"))
    cache.put(key(number), {"is": number}, bytes([number]) * size)
    (path,) = set(cache.folder.glob("*")) - before
    return path


def used(path: Path, seconds_ago: float) -> None:
    status = path.stat()
    os.utime(path, (status.st_atime, status.st_mtime - seconds_ago))


def test_an_entry_is_found_by_its_key_alone(cache: Cache) -> None:
    put(cache, 1)
    put(cache, 2)

    entry = cache.get(key(2))

    assert entry is not None
    assert (entry.document, entry.blob) == ({"is": 2}, b"\x02" * 100)
    assert cache.get(key(3)) is None
    assert cache.get({**key(2), "more": 1}) is None


def test_a_key_counts_by_content_not_by_order(cache: Cache) -> None:
    put(cache, 1)

    assert cache.get(dict(reversed(key(1).items()))) is not None


def test_no_damaged_byte_goes_unnoticed(cache: Cache) -> None:
    path = put(cache, 1, size=20)
    content = path.read_bytes()

    for place in range(len(content)):
        path.write_bytes(content[:place] + bytes([content[place] ^ 4]) + content[place + 1 :])
        assert cache.get(key(1)) is None, place
        path.write_bytes(content[:place])
        assert cache.get(key(1)) is None, place
    path.write_bytes(content)
    assert cache.get(key(1)) is not None


def test_an_entry_under_another_ones_name_is_none(cache: Cache) -> None:
    first, second = put(cache, 1), put(cache, 2)
    first.write_bytes(second.read_bytes())

    assert cache.get(key(1)) is None


def test_what_was_used_longest_ago_goes_first(tmp_path: Path) -> None:
    size = put(Cache(tmp_path / "sizes", MUCH), 0).stat().st_size
    cache = Cache(tmp_path / "cache", 3 * size)
    for number, seconds_ago in ((1, 300), (2, 200), (3, 100)):
        used(put(cache, number), seconds_ago)
    cache.get(key(1))

    cache.put(key(4), {"is": 4}, b"\x04" * 100)

    assert [number for number in (1, 2, 3, 4) if cache.get(key(number))] == [1, 3, 4]


def test_what_does_not_fit_is_not_stored_and_drives_nothing_out(tmp_path: Path) -> None:
    cache = Cache(tmp_path, 2000)
    put(cache, 1)

    cache.put(key(2), {}, bytes(2000))

    assert cache.get(key(2)) is None
    assert cache.get(key(1)) is not None


def test_with_a_bound_of_zero_no_folder_is_made(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache", 0)

    cache.put(key(1), {}, b"")

    assert cache.get(key(1)) is None
    assert not cache.folder.exists()


def test_what_killed_runs_left_long_ago_is_removed_and_what_is_being_written_is_not(cache: Cache) -> None:
    cache.folder.mkdir()
    left, recent = cache.folder / ".one.entry.abc.tmp", cache.folder / ".two.entry.abc.tmp"
    for path, seconds_ago in ((left, 7200), (recent, 60)):
        path.touch()
        used(path, seconds_ago)

    put(cache, 1)

    assert (left.exists(), recent.exists()) == (False, True)


def test_many_at_a_time_never_read_a_part_or_another(tmp_path: Path) -> None:
    cache = Cache(tmp_path, 2000)  # a few entries only: writing, reading and removing meet

    def work(number: int) -> bool:
        cache.put(key(number % 7), {"is": number % 7}, bytes([number % 7]) * 300)
        entries = [(wanted, cache.get(key(wanted))) for wanted in range(7)]
        return all(entry is None or entry.blob == bytes([wanted]) * 300 for wanted, entry in entries)

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(200)))


def test_a_folder_that_cannot_be_is_an_os_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    cache = Cache(tmp_path / "file" / "cache", MUCH)

    assert cache.get(key(1)) is None
    with pytest.raises(OSError, match="Not a directory"):
        cache.put(key(1), {}, b"")
