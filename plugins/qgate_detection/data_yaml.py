"""YOLOv5's `data.yaml`: where the splits are, and what the classes are called."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from qgate.errors import DataError
from qgate_detection.images import read_text

_SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class DataYaml:
    """One split of a `data.yaml`: the folder that paths are relative to, folders and lists of images, class names."""

    root: Path
    sources: tuple[Path, ...]
    names: tuple[str, ...]


def read_data_yaml(path: Path, split: str | None) -> DataYaml:
    """Read a `data.yaml`; its own `path` is relative to its folder. Raises `DataError`."""
    document = _parse(path)
    root = path.parent / str(document.get("path") or ".")
    entries = _entries(document, split, path)
    sources = tuple(Path(os.path.normpath(root / entry)) for entry in entries)
    return DataYaml(Path(os.path.normpath(root)), sources, _names(document, path))


def _parse(path: Path) -> dict[str, Any]:
    try:
        document = yaml.safe_load(read_text(path))
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else None
        raise DataError(f"is not YAML: {error.problem}", path=path, line=line) from None
    except yaml.YAMLError as error:
        raise DataError(f"is not YAML: {error}", path=path) from None
    if not isinstance(document, dict):
        raise DataError("is not a YOLOv5 data file; expected the keys names, and train, val or test", path=path)
    return document


def _entries(document: dict[str, Any], split: str | None, path: Path) -> list[str]:
    known = ", ".join(key for key in _SPLITS if document.get(key)) or "none"
    if split is None:
        raise DataError(f'needs a split, e.g. split = "val"; this file has: {known}', path=path)
    entry = document.get(split) if split in _SPLITS else None
    entries: list[Any] = entry if isinstance(entry, list) else [entry]
    if not entries or not all(isinstance(item, str) and item for item in entries):
        raise DataError(f"has no split {split!r} that names folders or lists of images; it has: {known}", path=path)
    return entries


def _names(document: dict[str, Any], path: Path) -> tuple[str, ...]:
    names = document.get("names")
    if isinstance(names, dict):
        if sorted(names, key=str) != sorted(range(len(names)), key=str):
            raise DataError(f"names must number the classes 0 to {len(names) - 1} without a gap", path=path)
        names = [names[index] for index in range(len(names))]
    if not isinstance(names, list) or not names:
        raise DataError("has no names; expected a list of class names, or their numbers and names", path=path)
    count = document.get("nc", len(names))
    if count != len(names):
        raise DataError(f"nc is {count}, but there are {len(names)} names; they must agree", path=path)
    return tuple(map(str, names))
