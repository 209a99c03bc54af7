"""Pictures and their marks, as the page's template shows them."""

from __future__ import annotations

import base64
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from qgate.panels import Gallery, Mark, Picture, State

__all__ = ["GalleryView", "gallery_view"]

_FOUND: dict[State, str] = {
    "both": "found by both arms",
    "only float32": "found by float32 only",
    "only int8": "found by int8 only",
    "missed": "missed by both arms",
}


@dataclass(frozen=True)
class MarkView:
    """A mark: its place as CSS, its classes, the number of its group, and its text."""

    place: str
    classes: str
    group: int
    text: str
    described: str


@dataclass(frozen=True)
class PictureView:
    """A picture as a data URL, and its marks."""

    picture: Picture
    source: str
    groups: str
    marks: list[MarkView]


@dataclass(frozen=True)
class GalleryView:
    """Pictures, and the groups of their marks: name and how many marks, most first."""

    title: str
    about: str
    groups: list[tuple[str, int]]
    pictures: list[PictureView]
    has_targets: bool


def gallery_view(gallery: Gallery) -> GalleryView:
    """Give what the template shows of a gallery."""
    marks = [mark for picture in gallery.pictures for mark in picture.marks]
    groups = Counter(mark.group for mark in marks).most_common()
    numbers = {name: number for number, (name, _) in enumerate(groups)}
    pictures = [_picture(picture, numbers) for picture in gallery.pictures]
    has_targets = any(mark.side == "target" for mark in marks)
    return GalleryView(gallery.title, gallery.about, groups, pictures, has_targets)


def _picture(picture: Picture, numbers: dict[str, int]) -> PictureView:
    source = f"data:{picture.media_type};base64,{base64.b64encode(picture.content).decode()}"
    groups = " ".join(str(number) for number in sorted({numbers[mark.group] for mark in picture.marks}))
    return PictureView(picture, source, groups, [_mark(mark, numbers[mark.group]) for mark in picture.marks])


def _mark(mark: Mark, number: int) -> MarkView:
    left, top, right, bottom = (100 * float(share) for share in mark.region)
    place = f"left:{left:.2f}%;top:{top:.2f}%;width:{right - left:.2f}%;height:{bottom - top:.2f}%"
    classes = f"of-{mark.side} {mark.state.replace(' ', '-')}"
    return MarkView(place, classes, number, mark.text, f"{mark.side}: {mark.text}, {_FOUND[mark.state]}")
