"""COCO's annotation file, checked."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from qgate.errors import DataError
from qgate_detection.images import read_text

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    MaskReader = Callable[[Any, "CocoImage"], str]

# Annotators' boxes are rounded: one may stick out of its image by a pixel.
_ROUNDING = 1.0


@dataclass(frozen=True)
class CocoAnnotation:
    """One object: its category's id, box (x, y, width, height) and area in pixels, and whether it is a crowd.

    `mask` is what was made of its segmentation, where that was asked for.
    """

    category: int
    box: tuple[float, float, float, float]
    area: float
    crowd: bool
    mask: str | None = None


@dataclass(frozen=True)
class CocoImage:
    """One image; its size is None where the file does not state it."""

    file_name: str
    width: int | None
    height: int | None
    annotations: list[CocoAnnotation] = field(default_factory=list)


@dataclass(frozen=True)
class CocoJson:
    """The images by ascending id, and category names by id."""

    images: tuple[CocoImage, ...]
    categories: dict[int, str]


class _MalformedError(Exception):
    """Something in the file is wrong; becomes a `DataError` that names the file."""


def read_coco_json(path: Path, *, allow_empty_boxes: bool, read_mask: MaskReader | None = None) -> CocoJson:
    """Read a COCO annotation file. Raises `DataError` that names the annotation.

    A box without area is an error unless `allow_empty_boxes`: no detection can find it. So is an annotation id of
    0, which pycocotools takes for "not matched": figures of other tools on this file would be wrong.
    `read_mask` makes a mask of an annotation's `segmentation` in its image; it raises `ValueError`.
    """
    document = _parse(path)
    try:
        images, categories = _read_images(document["images"]), _read_categories(document["categories"])
        annotations = document["annotations"]
        _read_annotations(annotations, images, categories, read_mask, allow_empty_boxes=allow_empty_boxes)
    except _MalformedError as error:
        raise DataError(str(error), path=path) from None
    return CocoJson(tuple(images[key] for key in sorted(images)), categories)


def _parse(path: Path) -> dict[str, list[Any]]:
    try:
        document = json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise DataError(f"is not JSON: {error.msg}", path=path, line=error.lineno) from None
    except RecursionError:
        raise DataError("is not COCO annotations: nested too deep", path=path) from None
    for key in ("images", "annotations", "categories"):
        if not isinstance(document, dict) or not isinstance(document.get(key), list):
            raise DataError(f"is not COCO annotations: expected an object with a list {key!r}", path=path)
    if not document["images"]:
        raise DataError("the set is empty: it lists no images", path=path)
    return dict(document)


def _read_images(records: list[Any]) -> dict[int, CocoImage]:
    images: dict[int, CocoImage] = {}
    for record in records:
        key = _get_id(record, "image", images)
        what = f"image {key}"
        width, height = (_get(record, name, int, what) if name in record else None for name in ("width", "height"))
        images[key] = CocoImage(_get(record, "file_name", str, what), width, height)
    return images


def _read_categories(records: list[Any]) -> dict[int, str]:
    categories: dict[int, str] = {}
    for record in records:
        key = _get_id(record, "category", categories)
        name = _get(record, "name", str, f"category {key}")
        if name in categories.values():
            raise _MalformedError(f"category {key}: the name {name!r} is taken; names must differ")
        categories[key] = name
    return categories


def _read_annotations(
    records: list[Any],
    images: dict[int, CocoImage],
    categories: dict[int, str],
    read_mask: MaskReader | None,
    *,
    allow_empty_boxes: bool,
) -> None:
    """Add annotations to their images."""
    seen: set[int] = set()
    for record in records:
        key = _get_id(record, "annotation", seen)
        seen.add(key)
        if key == 0:
            raise _MalformedError("annotation id 0: COCO's tools take it for 'not matched'; number annotations from 1")
        what = f"annotation {key}"
        image = images.get(_get(record, "image_id", int, what))
        if image is None:
            raise _MalformedError(f"{what}: image_id {record['image_id']} is not among the images")
        annotation = _read_annotation(record, what)
        if annotation.category not in categories:
            raise _MalformedError(f"{what}: category_id {annotation.category} is not among the categories")
        _check_box(annotation.box, image, what, allow_empty_boxes=allow_empty_boxes)
        image.annotations.append(_with_mask(annotation, record, image, read_mask, what))


def _read_annotation(record: dict[str, Any], what: str) -> CocoAnnotation:
    box = _get(record, "bbox", list, what)
    if len(box) != 4 or not all(_is_number(value) for value in box):  # noqa: PLR2004 - x, y, width, height
        raise _MalformedError(f"{what}: bbox is {box}; expected the 4 numbers x, y, width, height")
    area = record.get("area", box[2] * box[3])
    if not _is_number(area) or area < 0:
        raise _MalformedError(f"{what}: area is {area!r}; expected square pixels")
    crowd = record.get("iscrowd", 0)
    if crowd not in (0, 1):
        raise _MalformedError(f"{what}: iscrowd is {crowd!r}; expected 0 or 1")
    return CocoAnnotation(_get(record, "category_id", int, what), tuple(box), area, bool(crowd))


def _with_mask(
    annotation: CocoAnnotation, record: dict[str, Any], image: CocoImage, read_mask: MaskReader | None, what: str
) -> CocoAnnotation:
    if read_mask is None:
        return annotation
    try:
        return replace(annotation, mask=read_mask(record.get("segmentation"), image))
    except ValueError as error:
        raise _MalformedError(f"{what}: {error}") from None


def _check_box(box: tuple[float, float, float, float], image: CocoImage, what: str, *, allow_empty_boxes: bool) -> None:
    x, y, width, height = box
    if min(width, height) < 0 or (min(width, height) == 0 and not allow_empty_boxes):
        raise _MalformedError(f"{what}: its box is {width}x{height} pixels, so nothing can find it; remove or mend it")
    right, bottom = (math.inf if side is None else side + _ROUNDING for side in (image.width, image.height))
    if min(x, y) < -_ROUNDING or x + width > right or y + height > bottom:
        raise _MalformedError(
            f"{what}: its box, x {x:g} to {x + width:g}, y {y:g} to {y + height:g}, is outside its image, "
            f"{image.file_name} of {image.width}x{image.height} pixels"
        )


def _get_id(record: Any, kind: str, taken: Any) -> int:
    if not isinstance(record, dict):
        raise _MalformedError(f"{kind} {record!r} is not an object")
    key: int = _get(record, "id", int, kind)
    if key in taken:
        raise _MalformedError(f"{kind} id {key} is there twice; ids must differ")
    return key


def _get(record: dict[str, Any], key: str, kind: type, what: str) -> Any:
    value = record.get(key)
    if not isinstance(value, kind) or isinstance(value, bool):
        raise _MalformedError(f"{what}: {key} is {value!r}; expected {_KIND_NAMES[kind]}")
    return value


_KIND_NAMES = {int: "a whole number", str: "text", list: "a list"}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
