"""Artifacts that were damaged, cut short, half written or made to do harm."""

from __future__ import annotations

import hashlib
import io
import os
import pickle
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch

from qgate.engine.artifact import load_artifact, read_header, write_artifact
from qgate.errors import ArtifactError

if TYPE_CHECKING:
    from engine_doubles import Made


def test_any_flipped_byte_is_noticed_and_the_file_named(made: Made, tmp_path: Path) -> None:
    content = made.path.read_bytes()
    path = tmp_path / "flipped.pt"

    for position in {*range(0, len(content), max(1, len(content) // 400)), *range(len(content) - 80, len(content))}:
        damaged = bytearray(content)
        damaged[position] ^= 1
        path.write_bytes(damaged)
        with pytest.raises(ArtifactError, match=r"flipped\.pt: "):
            read_header(path)


@pytest.mark.parametrize("kept", [0.0, 0.001, 0.5, 0.99])
def test_a_truncated_file_is_refused(kept: float, made: Made, tmp_path: Path) -> None:
    path = tmp_path / "short.pt"
    content = made.path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])

    with pytest.raises(ArtifactError, match=r"short\.pt: is truncated, damaged or no qgate artifact; export"):
        load_artifact(path)


def test_a_file_with_something_behind_it_is_refused(made: Made, tmp_path: Path) -> None:
    path = tmp_path / "longer.pt"
    path.write_bytes(made.path.read_bytes() + b"x")

    with pytest.raises(ArtifactError, match=r"longer\.pt"):
        load_artifact(path)


def test_a_missing_file_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"none\.pt: no such file; run the gate or `qgate export` first"):
        load_artifact(tmp_path / "none.pt")


def test_a_folder_is_no_artifact(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="cannot be read"):
        load_artifact(tmp_path)


class Evil:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def sealed(archive: bytes) -> bytes:
    """Seal as qgate does: whoever makes a file can do that too."""
    return archive + b"\nqgate-sha256:" + hashlib.sha256(archive).hexdigest().encode()


def saved(document: object) -> bytes:
    stream = io.BytesIO()
    torch.save(document, stream)
    return stream.getvalue()


@pytest.mark.parametrize("form", ["zip", "zip within", "plain pickle", "unsealed"])
def test_a_malicious_pickle_is_refused_and_does_not_run(form: str, tmp_path: Path) -> None:
    evil = Evil(tmp_path / "made")
    content = {
        "zip": sealed(saved(evil)),
        "zip within": sealed(saved({"format": "qgate-artifact-1", "header": "{}", "graph": evil, "tensors": {}})),
        "plain pickle": sealed(pickle.dumps(evil)),
        "unsealed": saved(evil),
    }[form]
    path = tmp_path / "evil.pt"
    path.write_bytes(content)

    with pytest.raises(ArtifactError, match=r"evil\.pt: "):
        load_artifact(path)
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(
    "document",
    [
        [],
        {"format": "qgate-artifact-9"},
        {"format": "qgate-artifact-1"},
        {"format": "qgate-artifact-1", "header": "{}", "graph": torch.zeros(4, dtype=torch.uint8), "tensors": {}},
        {"format": "qgate-artifact-1", "header": "{", "graph": "", "tensors": []},
    ],
)
def test_a_sealed_file_of_another_kind_is_refused(document: object, tmp_path: Path) -> None:
    path = tmp_path / "other.pt"
    path.write_bytes(sealed(saved(document)))

    with pytest.raises(ArtifactError, match=r"other\.pt: is (damaged|no qgate artifact).*; export the model again"):
        load_artifact(path)


def test_an_interrupted_write_leaves_the_old_file(made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.pt"
    path.write_bytes(made.path.read_bytes())

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ArtifactError, match=r"model\.pt: cannot be written: No space left on device"):
        write_artifact(path, b"new")

    assert path.read_bytes() == made.path.read_bytes()
    assert [entry.name for entry in tmp_path.iterdir()] == ["model.pt"]


def test_what_was_written_is_described(tmp_path: Path) -> None:
    described = write_artifact(tmp_path / "new" / "model.pt", b"content")

    assert (described.path, described.bytes) == (str(tmp_path / "new" / "model.pt"), 7)
    assert described.sha256 == hashlib.sha256(Path(described.path).read_bytes()).hexdigest()
