"""Images with a PNG each, whose pixels are class indices: PASCAL VOC's and Cityscapes' form of semantic labels."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from PIL import Image

from qgate.errors import DataError
from qgate_detection.dataset import ImageDataset
from qgate_detection.images import list_images
from qgate_segmentation.label_map import NO_CLASS, LabelMap

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from typing_extensions import Self

    from qgate_detection.images import ImageFile

_MODES = frozenset({"1", "L", "P"})  # Pillow's for one channel of at most 8 bits, with a palette or without


@dataclass(frozen=True)
class IndexPngOptions:
    """`images` is a folder or a `.txt` list of images; `masks` a folder of PNGs, which calibration can do without.

    The mask of `images/a/b.jpg` is `masks/a/b.png`, that of an image in a list has its name: `masks/b.png`.
    """

    images: Path
    masks: Path | None = None


@dataclass(frozen=True)
class IndexPng:
    """The mask of one image; `num_classes` is 0 where that is not known."""

    path: Path
    num_classes: int

    def class_indices(self) -> frozenset[int]:
        """Read which classes are in the mask. Raises `DataError`."""
        return frozenset(np.unique(self._read()).tolist()) - {NO_CLASS}

    def targets(self, height: int, width: int) -> LabelMap:
        """Read the mask. Raises `DataError` where it is not of the image's size or holds an unknown class."""
        labels = self._read()
        if labels.shape != (height, width):
            raise DataError(
                f"the mask is {labels.shape[1]}x{labels.shape[0]} pixels, its image {width}x{height}; was one resized, "
                "or turned by the image's EXIF orientation?",
                path=self.path,
            )
        return LabelMap(labels)

    def _read(self) -> NDArray[np.uint8]:
        labels = read_indices(self.path)
        wrong = (labels != NO_CLASS) & (labels >= (self.num_classes or NO_CLASS))
        if wrong.any():
            row, column = np.argwhere(wrong)[0]
            raise DataError(
                f"the pixel in row {row}, column {column} is {labels[row, column]}; expected 0 to "
                f"{self.num_classes - 1}, the model's classes, or {NO_CLASS} for what is not labelled",
                path=self.path,
            )
        return labels


class IndexPngDataset(ImageDataset):
    """Images with a mask each, in the order of their paths; a sample's target is a `LabelMap`."""

    name: ClassVar[str] = "index_png"
    Options: ClassVar[type] = IndexPngOptions

    @classmethod
    def open(cls, options: IndexPngOptions, *, class_names: Sequence[str], require_targets: bool) -> Self:
        """Find all images and masks. Raises `DataError`."""
        images, masks = list_images(options.images), options.masks
        if masks is None:
            if require_targets:
                raise DataError('has no masks; add masks = "FOLDER", with a PNG for each image', path=options.images)
            return cls(images, [None] * len(images), class_names)
        is_folder = options.images.is_dir()
        paths = [masks / Path(image.id if is_folder else image.path.name).with_suffix(".png") for image in images]
        _check_masks(images, paths)
        return cls(images, [IndexPng(path, len(class_names)) for path in paths], class_names)


def _check_masks(images: Sequence[ImageFile], masks: Sequence[Path]) -> None:
    missing = [(image, mask) for image, mask in zip(images, masks, strict=True) if not mask.is_file()]
    if missing:
        image, mask = missing[0]
        others = f", nor have {len(missing) - 1} other images theirs" if len(missing) > 1 else ""
        raise DataError(f"has no mask{others}; expected {mask}", path=image.path)
    first: dict[Path, ImageFile] = {}
    for image, mask in zip(images, masks, strict=True):
        other = first.setdefault(mask, image)
        if other.path != image.path:
            raise DataError(
                f"images {other.id} and {image.id} would share one mask; give each image a name of its own", path=mask
            )


def read_indices(path: Path) -> NDArray[np.uint8]:
    """Read a PNG of indices, uint8 (H, W). Raises `DataError`.

    By Pillow: OpenCV turns the indices of a palette into colours.
    """
    try:
        with Image.open(path, formats=["PNG"]) as picture:
            mode, indices = picture.mode, np.asarray(picture)
    except Exception as error:  # a damaged file may raise anything
        raise DataError(f"the mask is damaged, or no PNG ({error}); restore it", path=path) from error
    if mode not in _MODES:
        raise DataError(f"the mask is of mode {mode}; expected one channel of class indices, 8-bit", path=path)
    return indices.astype(np.uint8)
