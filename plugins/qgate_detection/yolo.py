"""Data sets of YOLOv5's layout: `data.yaml`, a folder, or a list of images, with text labels."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from qgate.errors import DataError
from qgate_detection.data_yaml import read_data_yaml
from qgate_detection.dataset import ImageDataset, check_any_target, check_class_count, check_class_order
from qgate_detection.images import ImageFile, is_remote, list_images
from qgate_detection.yolo_labels import YoloLabels, find_labels, read_labels

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from typing_extensions import Self


@dataclass(frozen=True)
class YoloOptions:
    """`path` is a `data.yaml`, of which `split` names a key, or a folder of images, or a `.txt` list of them.

    Images without labels may be at a URI.
    """

    path: Path = field(metadata={"uri": True})
    split: str | None = None


class YoloDataset(ImageDataset):
    """Images with a text file of normalized boxes or polygons each; without a file, an image of background."""

    name: ClassVar[str] = "yolo"
    Options: ClassVar[type] = YoloOptions

    @classmethod
    def open(cls, options: YoloOptions, *, class_names: Sequence[str], require_targets: bool) -> Self:
        """Find all images, read and check all labels. Raises `DataError`."""
        images, names = images_and_names(options)
        if any(is_remote(image.path) for image in images):
            if require_targets:
                raise DataError(
                    "images at a URI have no labels in this format, which are a file an image; use format coco",
                    path=options.path,
                )
            return cls(images, [None] * len(images), class_names)
        check_class_count(names, class_names, options.path)
        check_class_order(names, class_names, options.path)
        labels = _read_all(images, len(names or class_names))
        if require_targets:
            _check_evaluable(images, labels, options.path)
        return cls(images, _with_backgrounds(labels), names or class_names)


def images_and_names(options: YoloOptions) -> tuple[list[ImageFile], tuple[str, ...]]:
    """Find all images, and the names of their classes where they are said. Raises `DataError`."""
    if options.path.suffix in {".yaml", ".yml"}:
        data = read_data_yaml(options.path, options.split)
        return [image for source in data.sources for image in list_images(source, relative_to=data.root)], data.names
    if options.split is not None:
        raise DataError(
            f"split {options.split!r} needs a data.yaml; a folder or a list has no splits", path=options.path
        )
    return list_images(options.path), ()


def _read_all(images: Sequence[ImageFile], num_classes: int) -> list[YoloLabels | None]:
    files = [find_labels(image.path) for image in images]
    return [read_labels(file, num_classes) if file else None for file in files]


def _with_backgrounds(labels: Sequence[YoloLabels | None]) -> Sequence[YoloLabels | None]:
    """Say that images without a label file hold nothing, where others have one: then the set is a labelled one."""
    return [item or YoloLabels.nothing() for item in labels] if any(labels) else labels


def _check_evaluable(images: Sequence[ImageFile], labels: Sequence[YoloLabels | None], path: Path) -> None:
    if all(item is None for item in labels):
        expected = images[0].path.with_suffix(".txt").name
        raise DataError(
            f"none of {len(images)} images has labels; expected e.g. {expected} beside {images[0].path} "
            "or in the folder `labels` in place of `images`",
            path=path,
        )
    check_any_target(labels, path)
