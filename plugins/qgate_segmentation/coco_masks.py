"""COCO's annotation files with their masks: polygons and run lengths."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from pycocotools import mask as coco_mask

from qgate_detection.coco import CocoDataset, CocoLabels
from qgate_segmentation.masks import InstanceTargets, Masks, run_lengths

if TYPE_CHECKING:
    from collections.abc import Callable

    from qgate_detection.coco_json import CocoImage

_MIN_COORDINATES = 6  # three points
_ROUNDING = 1.0  # of annotators, in pixels
_LARGEST_SIDE = 1 << 16  # more would only take memory


class CocoMaskLabels(CocoLabels):
    """The annotations of one image with their masks."""

    def targets(self, height: int, width: int) -> InstanceTargets:
        """Give boxes and masks. Raises `DataError` where the image is not of the size that the JSON states."""
        found = super().targets(height, width)
        counts = tuple(item.mask or "" for item in self.image.annotations)
        masks = Masks(height, width, counts)
        return InstanceTargets(found.boxes, found.classes, found.crowd, found.areas, masks=masks)


class CocoMasksDataset(CocoDataset):
    """Images with COCO annotations; a sample's target is `InstanceTargets`."""

    name: ClassVar[str] = "coco_masks"
    labels_type: ClassVar[type[CocoLabels]] = CocoMaskLabels

    @staticmethod
    def mask_reader() -> Callable[[Any, CocoImage], str]:
        """Read masks beside boxes."""
        return read_segmentation


def read_segmentation(segmentation: Any, image: CocoImage) -> str:
    """Turn an annotation's `segmentation` into compressed run lengths. Raises `ValueError`."""
    height, width = image.height or 0, image.width or 0
    if not (0 < height <= _LARGEST_SIDE and 0 < width <= _LARGEST_SIDE):
        raise ValueError(f"its image, {image.file_name}, states no height and width, which masks need")
    size = (height, width)
    if isinstance(segmentation, list) and segmentation:
        return _from_polygons(segmentation, size)
    if not isinstance(segmentation, dict):
        raise ValueError("it has no segmentation; expected polygons or run lengths")  # noqa: TRY004 - one cause
    if segmentation.get("size") != list(size):
        raise ValueError(f"its mask is of size {segmentation.get('size')}, its image of {list(size)} (height, width)")
    return _from_run_lengths(segmentation.get("counts"), size)


def _from_polygons(polygons: list[Any], size: tuple[int, int]) -> str:
    for polygon in polygons:
        _check_polygon(polygon, size)
    merged: bytes = coco_mask.merge(coco_mask.frPyObjects(polygons, *size))["counts"]
    return merged.decode("ascii")


def _check_polygon(polygon: Any, size: tuple[int, int]) -> None:
    numbers = isinstance(polygon, list) and all(isinstance(one, int | float) and math.isfinite(one) for one in polygon)
    if not numbers or len(polygon) < _MIN_COORDINATES or len(polygon) % 2:
        raise ValueError("a polygon of its segmentation is not x and y of three points or more")
    xs, ys = np.array(polygon[0::2]), np.array(polygon[1::2])
    if min(xs.min(), ys.min()) < -_ROUNDING or xs.max() > size[1] + _ROUNDING or ys.max() > size[0] + _ROUNDING:
        raise ValueError(
            f"a polygon of its segmentation, x {xs.min():g} to {xs.max():g}, y {ys.min():g} to {ys.max():g}, "
            f"leaves its image of {size[1]}x{size[0]} pixels"
        )


def _from_run_lengths(counts: Any, size: tuple[int, int]) -> str:
    """Decode run lengths, a list or a string, and encode them again: what a file holds need not be sound."""
    lengths = _decompressed(counts) if isinstance(counts, str) else counts
    if not isinstance(lengths, list) or not all(isinstance(one, int) and one >= 0 for one in lengths):
        raise ValueError("its run lengths (counts) are damaged")
    if sum(lengths) != math.prod(size):
        raise ValueError(f"its run lengths add up to {sum(lengths)} pixels, its image has {math.prod(size)}")
    values = np.arange(len(lengths)) % 2 == 1
    return run_lengths(np.repeat(values, lengths).reshape(size, order="F"))


def _decompressed(counts: str) -> list[int]:
    """Decode COCO's compressed run lengths: digits of 5 bits, lowest first, from the third number on as differences.

    Written from the format's description in pycocotools' `maskApi.c` (a digit is `chr(48 + bits)`, bit 6 says that
    another follows, the highest bit of the last is the sign). In Python, for the C code reads beyond a damaged string.
    """
    lengths: list[int] = []
    value = shift = 0
    for character in counts:
        digit = ord(character) - 48
        if not 0 <= digit < 64:  # noqa: PLR2004 - 6 bits
            raise ValueError("its run lengths (counts) are damaged")
        value |= (digit & 31) << shift
        shift += 5
        if not digit & 32:
            value -= (digit & 16) << (shift - 4)  # the sign: two to the power of `shift`
            lengths.append(value + (lengths[-2] if len(lengths) > 2 else 0))  # noqa: PLR2004 - as said above
            value = shift = 0
    if shift:
        raise ValueError("its run lengths (counts) are cut short")
    return lengths
