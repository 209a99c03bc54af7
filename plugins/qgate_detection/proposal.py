"""What `qgate init` writes for detection data."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qgate.errors import DataError
from qgate.statistics import provable_drop
from qgate_detection.coco_json import CocoImage, read_coco_json
from qgate_detection.data_yaml import read_data_yaml
from qgate_detection.images import is_remote, list_images
from qgate_detection.yolo import YoloOptions, images_and_names
from qgate_detection.yolo_labels import find_labels

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from qgate_detection.images import ImageFile

_YAML = frozenset({".yaml", ".yml"})

# Where a folder keeps what describes it: YOLOv5's, COCO's and Roboflow's habits.
_DESCRIPTIONS = (
    "data.yaml",
    "data.yml",
    "dataset.yaml",
    "annotations/instances_val*.json",
    "instances*.json",
    "*/_annotations.coco.json",
)
_EVALUATION_FOLDERS = ("images/val*", "val*/images", "val*")
_EVALUATION_NAME = re.compile("validation|valid|val|test")


def propose_data(data: Path) -> dict[str, Any] | None:
    """Propose splits for a `data.yaml`, a COCO JSON, a folder or a `.txt` list of images. Raises `DataError`."""
    if data.is_dir():
        data = _description(data)
    if data.suffix in _YAML:
        return _yolo_proposal(*_yaml_splits(data))
    if data.suffix == ".json":
        return _coco_proposal(data)
    if data.is_dir() or data.suffix == ".txt":
        return _yolo_proposal(*_yolo_splits(data))
    return None


def _proposal(data: dict[str, Any], num_images: int, *, labelled: bool) -> dict[str, Any]:
    metric = "map" if labelled else "agreement"
    thresholds = {metric: {"max_drop": provable_drop(num_images)}}
    return {"data": data, "thresholds": thresholds, "num_evaluation_samples": num_images}


def _yolo_proposal(calibration: dict[str, Any], evaluation: dict[str, Any]) -> dict[str, Any]:
    images, _ = images_and_names(YoloOptions(**evaluation))
    data = {"format": "yolo", "calibration": calibration, "evaluation": evaluation}
    return _proposal(data, len(images), labelled=any(map(_has_labels, images)))


def _has_labels(image: ImageFile) -> bool:
    labels = None if is_remote(image.path) else find_labels(image.path)
    return labels is not None and labels.stat().st_size > 0


def _description(folder: Path) -> Path:
    """Find the data file or the annotations of a folder, else its folder of evaluation images, else itself."""
    patterns = (*_DESCRIPTIONS, *_EVALUATION_FOLDERS)
    return next((path for pattern in patterns for path in _by_split(folder.glob(pattern))), folder)


def _by_split(paths: Iterator[Path]) -> list[Path]:
    """Sort paths, those of evaluation before those of training."""
    return sorted(paths, key=lambda path: ("train" in path.as_posix(), path))


def _yaml_splits(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    reasons = {split: _reason_against(path, split) for split in ("val", "test", "train")}
    usable = [split for split, reason in reasons.items() if reason is None]
    if not usable:
        raise DataError(f"has no split whose images are there: {reasons['val']}", path=path)
    calibration = "train" if "train" in usable else usable[0]
    return {"path": path, "split": calibration}, {"path": path, "split": usable[0]}


def _reason_against(path: Path, split: str) -> DataError | None:
    try:
        data = read_data_yaml(path, split)
        for source in data.sources:
            list_images(source, relative_to=data.root)
    except DataError as error:
        return error
    return None


def _coco_proposal(path: Path) -> dict[str, Any]:
    images = _coco_images(path)
    evaluation = {"images": _image_folder(path, images), "annotations": path}
    train = _train_counterpart(path)
    calibration = {"images": _image_folder(train, _coco_images(train)), "annotations": train} if train else evaluation
    data = {"format": "coco", "calibration": calibration, "evaluation": evaluation}
    return _proposal(data, len(images), labelled=any(image.annotations for image in images))


def _coco_images(annotations: Path) -> Sequence[CocoImage]:
    return read_coco_json(annotations, allow_empty_boxes=True).images


def _image_folder(annotations: Path, images: Sequence[CocoImage]) -> Path:
    """Find the folder that holds the first image that a COCO JSON lists. Raises `DataError`."""
    image = images[0].file_name
    split = annotations.stem.removeprefix("instances_")
    folder = annotations.parent
    roots = (folder, folder.parent)
    candidates = [root / name for root in roots for name in (".", "images", split, f"images/{split}")]
    for candidate in candidates:
        if (candidate / image).is_file():
            return Path(os.path.normpath(candidate))
    tried = ", ".join(sorted({os.path.normpath(candidate) for candidate in candidates}))
    raise DataError(f"the image {image} is in none of {tried}; move the images beside it", path=annotations)


def _yolo_splits(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    list_images(path)
    return {"path": _train_counterpart(path) or path}, {"path": path}


def _train_counterpart(path: Path) -> Path | None:
    """Find what is named as `path` is, with "train" for "val", "valid" or "test" in its name or its folder's."""
    folder, name = path.parent, path.name
    renamed_folder, renamed = (_EVALUATION_NAME.sub("train", part) for part in (folder.name, name))
    candidates = (folder / renamed, folder.parent / renamed_folder / name, folder.parent / renamed_folder / renamed)
    return next((candidate for candidate in candidates if candidate != path and candidate.exists()), None)
