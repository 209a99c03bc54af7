"""What plugins show of a model in a report: values that any task may fill, and that no report asks a plugin about."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

__all__ = ["Arm", "CurvePlot", "Curves", "Gallery", "Line", "Mark", "Panel", "Picture", "State"]

Arm = Literal["float32", "int8"]
Side = Literal["float32", "int8", "target"]
State = Literal["both", "only float32", "only int8", "missed"]

MEDIA_TYPES = ("image/jpeg", "image/png", "image/webp")
_CORNERS = 4


@dataclass(frozen=True)
class Line:
    """One line of a plot; `x` and `y` are of one length, `x` in rising order. Raises `ValueError`."""

    arm: Arm
    x: tuple[float, ...]
    y: tuple[float, ...]

    def __post_init__(self) -> None:
        if self.arm not in get_args(Arm) or len(self.x) != len(self.y):
            raise ValueError(f"a line of {self.arm!r} with {len(self.x)} x and {len(self.y)} y")


@dataclass(frozen=True)
class CurvePlot:
    """One plot with the lines of both arms."""

    title: str
    lines: tuple[Line, ...]


@dataclass(frozen=True)
class Curves:
    """Plots that share their axes' meaning; both axes reach from 0 to 1."""

    title: str
    about: str
    x_label: str
    y_label: str
    plots: tuple[CurvePlot, ...]


@dataclass(frozen=True)
class Mark:
    """A rectangle over a picture.

    `region` is left, top, right and bottom, as shares of the picture's width and height. `group` is what a reader may
    filter by, a class; `side` says who says so, an arm or the target; `state` which arms found it. Raises `ValueError`.
    """

    region: tuple[float, float, float, float]
    group: str
    side: Side
    state: State
    text: str = ""

    def __post_init__(self) -> None:
        if self.side not in get_args(Side) or self.state not in get_args(State):
            raise ValueError(f"a mark of {self.side!r}, {self.state!r}")
        if len(self.region) != _CORNERS or not all(math.isfinite(share) for share in self.region):
            raise ValueError(f"a mark's region is {self.region!r}; expected left, top, right and bottom, as shares")
        if not isinstance(self.group, str):
            raise ValueError(f"a mark's group is {self.group!r}; expected a text")  # noqa: TRY004 - as said above


@dataclass(frozen=True)
class Picture:
    """A picture with what both arms say about it; `content` is a file of `media_type`. Raises `ValueError`."""

    name: str
    caption: str
    content: bytes
    media_type: str
    width: int
    height: int
    marks: tuple[Mark, ...] = ()

    def __post_init__(self) -> None:
        if self.media_type not in MEDIA_TYPES:
            raise ValueError(f"a picture of {self.media_type!r}; expected one of {', '.join(MEDIA_TYPES)}")
        if not (isinstance(self.content, bytes) and self.content):
            raise ValueError(f"the content of picture {self.name!r} is no bytes of a file")
        if not (self.width > 0 and self.height > 0):
            raise ValueError(f"picture {self.name!r} is {self.width} wide and {self.height} high; expected pixels")
        _check_parts(self.marks, Mark)


@dataclass(frozen=True)
class Gallery:
    """Pictures, the most telling first. Raises `ValueError`."""

    title: str
    about: str
    pictures: tuple[Picture, ...]

    def __post_init__(self) -> None:
        _check_parts(self.pictures, Picture)


def _check_parts(parts: tuple[object, ...], kind: type) -> None:
    for part in parts:
        if not isinstance(part, kind):
            raise ValueError(f"{part!r} is no {kind.__name__}")  # noqa: TRY004 - as the class says


Panel = Curves | Gallery
