"""What plugins show of a model in a report: values that any task may fill, and that no report asks a plugin about."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

__all__ = ["Arm", "CurvePlot", "Curves", "Gallery", "Line", "Mark", "Panel", "Picture", "State"]

Arm = Literal["float32", "int8"]
Side = Literal["float32", "int8", "target"]
State = Literal["both", "only float32", "only int8", "missed"]

MEDIA_TYPES = ("image/jpeg", "image/png", "image/webp")


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


@dataclass(frozen=True)
class Gallery:
    """Pictures, the most telling first."""

    title: str
    about: str
    pictures: tuple[Picture, ...]


Panel = Curves | Gallery
