"""Data sets of COCO's layout: a folder of images and one JSON file of annotations."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from qgate.errors import DataError
from qgate_detection.boxes import Targets
from qgate_detection.coco_json import read_coco_json
from qgate_detection.dataset import ImageDataset, check_any_target, check_class_count
from qgate_detection.images import ImageFile, joined, list_images

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from typing_extensions import Self

    from qgate_detection.coco_json import CocoImage, CocoJson, MaskReader


@dataclass(frozen=True)
class CocoOptions:
    """`images` is a folder (without annotations also a `.txt` list of images), `annotations` a JSON file; or URIs."""

    images: Path = field(metadata={"uri": True})
    annotations: Path | None = field(default=None, metadata={"uri": True})


@dataclass(frozen=True, eq=False)
class CocoLabels:
    """The annotations of one image, their classes as indices of the model's."""

    image: CocoImage
    classes: np.ndarray[tuple[int], np.dtype[np.int64]]
    annotations: Path

    def class_indices(self) -> frozenset[int]:
        """Give the classes in the image, crowds included."""
        return frozenset(self.classes.tolist())

    def targets(self, height: int, width: int) -> Targets:
        """Give the annotated boxes. Raises `DataError` where the image is not of the size that the JSON states."""
        stated = (self.image.height, self.image.width)
        if None not in stated and stated != (height, width):
            raise DataError(
                f"image {self.image.file_name} is {width}x{height} pixels, its annotations are for "
                f"{self.image.width}x{self.image.height}; was it resized, or turned by its EXIF orientation?",
                path=self.annotations,
            )
        annotations = self.image.annotations
        corner_and_size = np.array([item.box for item in annotations], dtype=np.float64).reshape(-1, 4)
        boxes = np.concatenate([corner_and_size[:, :2], corner_and_size[:, :2] + corner_and_size[:, 2:]], axis=1)
        crowd = np.array([item.crowd for item in annotations], dtype=bool)
        return Targets(boxes, self.classes, crowd, np.array([item.area for item in annotations], dtype=np.float64))


class CocoDataset(ImageDataset):
    """Images with COCO annotations, in the order of their image ids, as pycocotools has them."""

    name: ClassVar[str] = "coco"
    Options: ClassVar[type] = CocoOptions
    labels_type: ClassVar[type[CocoLabels]] = CocoLabels

    @staticmethod
    def mask_reader() -> MaskReader | None:
        """Give what reads masks; None leaves them unread."""
        return None

    @classmethod
    def open(cls, options: CocoOptions, *, class_names: Sequence[str], require_targets: bool) -> Self:
        """Read and check the annotations, and find all images. Raises `DataError`."""
        path = options.annotations
        if path is None:
            if require_targets:
                raise DataError('has no annotations; add annotations = "instances.json"', path=options.images)
            images = list_images(options.images)
            return cls(images, [None] * len(images), class_names)
        document = read_coco_json(path, allow_empty_boxes=not require_targets, read_mask=cls.mask_reader())
        class_index, names = _map_classes(document, class_names, path)
        labels = [cls.labels_type(image, _classes(image, class_index), path) for image in document.images]
        if require_targets:
            check_any_target(labels, path)
        return cls([_image_file(image, options.images, path) for image in document.images], labels, names)


def _map_classes(document: CocoJson, class_names: Sequence[str], path: Path) -> tuple[dict[int, int], tuple[str, ...]]:
    """Map category ids to class indices: by name where all names are the model's, else by rank, as YOLOv5 does."""
    categories = sorted(document.categories.items())
    names = tuple(name for _, name in categories)
    check_class_count(names, class_names, path)
    if set(names) == set(class_names):
        return {category: class_names.index(name) for category, name in categories}, tuple(class_names)
    return {category: index for index, (category, _) in enumerate(categories)}, names


def _classes(image: CocoImage, class_index: dict[int, int]) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return np.array([class_index[item.category] for item in image.annotations], dtype=np.int64)


def _image_file(image: CocoImage, folder: Path, path: Path) -> ImageFile:
    return ImageFile(joined(folder, image.file_name), image.file_name, path)
