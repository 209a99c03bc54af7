"""What `qgate init` writes for folders of classes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qgate.statistics import provable_drop
from qgate_detection.images import SUFFIXES, list_images

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_TRAINING = ("train*",)
_EVALUATION = ("val*", "test*")
# Folders of these names hold a part of a data set, not a class.
_NO_CLASSES = frozenset({"annotations", "images", "labels", "masks", "test", "train", "val", "valid", "validation"})
_MIN_CLASSES = 2


def propose_data(data: Path) -> dict[str, Any] | None:
    """Propose splits for a folder with `train` and `val`, each with class folders, or of class folders itself."""
    if not data.is_dir():
        return None
    evaluation = next(_class_roots(data, _EVALUATION), data)
    if not _holds_classes(evaluation):
        return None
    training = _class_roots(evaluation.parent, _TRAINING) if _names_split(evaluation) else iter(())
    splits = {"calibration": {"path": next(training, evaluation)}, "evaluation": {"path": evaluation}}
    num_images = len(list_images(evaluation))
    return {
        "data": {"format": "image_folder", **splits},
        "thresholds": {"top1": {"max_drop": provable_drop(num_images)}},
        "num_evaluation_samples": num_images,
    }


def _class_roots(folder: Path, patterns: tuple[str, ...]) -> Iterator[Path]:
    found = (path for pattern in patterns for path in sorted(folder.glob(pattern)))
    return (path for path in found if _holds_classes(path))


def _names_split(folder: Path) -> bool:
    return any(folder.match(pattern) for pattern in _EVALUATION)


def _holds_classes(folder: Path) -> bool:
    """Say whether a folder holds class folders and nothing of another format: no labels and no other images."""
    if not folder.is_dir():
        return False
    entries = [path for path in sorted(folder.iterdir()) if not path.name.startswith(".")]
    classes = [path for path in entries if path.is_dir()]
    loose = [path for path in entries if path.suffix.lower() in {*SUFFIXES, ".txt", ".json", ".yaml", ".yml"}]
    return len(classes) >= _MIN_CLASSES and not loose and all(map(_is_class, classes))


def _is_class(folder: Path) -> bool:
    """Say whether a folder may be a class: it holds images, and none with YOLO labels beside it."""
    images = [path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES]
    return folder.name not in _NO_CLASSES and bool(images) and not images[0].with_suffix(".txt").exists()
