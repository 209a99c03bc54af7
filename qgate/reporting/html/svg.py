"""Plots as SVG inside a page: matplotlib draws them, the page's style sheet colours them."""

from __future__ import annotations

import io
import re
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

import matplotlib as mpl
from matplotlib.figure import Figure

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from xml.etree.ElementTree import Element

__all__ = [
    "CARD",
    "FLOAT32",
    "GRID",
    "INK",
    "INT8",
    "MISSED",
    "MUTED",
    "PASSED",
    "UNSURE",
    "drawing",
    "label",
    "new_figure",
    "svg_of",
]

# Stand-ins for the style sheet's colours, which differ between light and dark.
INK, MUTED, GRID = "#010101", "#020202", "#030303"
FLOAT32, INT8, CARD = "#040404", "#050505", "#060606"
PASSED, UNSURE, MISSED = "#070707", "#080808", "#090909"
_VARIABLES = {
    INK: "ink",
    MUTED: "muted",
    GRID: "grid",
    FLOAT32: "float32",
    INT8: "int8",
    CARD: "card",
    PASSED: "passed",
    UNSURE: "unsure",
    MISSED: "missed",
}

_LONGEST = 40
_INCHES_WIDE = 4.4
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text: small, and of the page's font
    "text.parse_math": False,  # names hold dollars and backslashes
    "font.size": 9.0,
    "text.color": INK,
    "axes.labelcolor": MUTED,
    "axes.edgecolor": GRID,
    "axes.facecolor": "none",
    "axes.linewidth": 0.8,
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "xtick.color": GRID,
    "ytick.color": GRID,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "legend.labelcolor": INK,
    "lines.linewidth": 1.6,
    "lines.solid_capstyle": "round",
    "figure.facecolor": "none",
    "savefig.facecolor": "none",
}


@contextmanager
def drawing() -> Iterator[None]:
    """Draw in the page's style, without warnings: of a font without some character, the page's own font has it."""
    with mpl.rc_context(_STYLE), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def new_figure(height: float, width: float = _INCHES_WIDE) -> Figure:
    """Give a figure of so many inches."""
    return Figure(figsize=(width, height), layout="constrained")


def label(text: str) -> str:
    """Give a name as a plot can show it: one line, printable, not too long."""
    line = " ".join("".join(character if character.isprintable() else " " for character in text).split())
    return line if len(line) <= _LONGEST else f"{line[: _LONGEST - 1]}…"


def svg_of(figure: Figure, name: str, described: str, titles: Mapping[str, str] | None = None) -> str:
    """Give a figure as an SVG element; `described` is its text alternative, `titles` are tooltips by artists' gid.

    `name` keeps the ids of several figures in a page apart.
    """
    stream = io.StringIO()
    with mpl.rc_context({**_STYLE, "svg.hashsalt": name}):
        figure.savefig(stream, format="svg", metadata={"Date": None})
    root = ElementTree.fromstring(stream.getvalue())  # noqa: S314  # matplotlib has just written it
    root.attrib = {"viewBox": root.attrib["viewBox"], "class": "plot", "role": "img", "aria-label": described}
    _make_plain(root)
    _set_titles(root, titles or {})
    _rename_ids(root, name)
    return _themed(ElementTree.tostring(root, encoding="unicode", short_empty_elements=False))


def _make_plain(root: Element) -> None:
    """Take out what HTML needs not: namespaces, metadata, a style sheet that would reach the whole page."""
    for element in root.iter():
        element.tag = _local(element.tag)
        element.attrib = {_local(key): value for key, value in element.attrib.items()}
        for child in list(element):
            if _local(child.tag) in ("metadata", "style"):
                element.remove(child)


def _local(name: Any) -> str:
    return str(name).rpartition("}")[2]


def _set_titles(root: Element, titles: Mapping[str, str]) -> None:
    for element in root.iter("g"):
        if element.get("id") in titles:
            title = ElementTree.Element("title")
            title.text = titles[element.attrib["id"]]
            element.insert(0, title)


def _rename_ids(root: Element, name: str) -> None:
    """Keep the ids that something refers to, and make them this figure's own."""
    text = ElementTree.tostring(root, encoding="unicode")
    used = {*re.findall(r"url\(#([^)]+)\)", text), *re.findall(r'href="#([^"]+)"', text)}
    for element in root.iter():
        if element.get("id") is not None:
            if element.attrib["id"] in used:
                element.attrib["id"] = f"{name}-{element.attrib['id']}"
            else:
                del element.attrib["id"]
        for key, value in element.attrib.items():
            renamed = re.sub(r"url\(#([^)]+)\)", rf"url(#{name}-\1)", value)
            element.attrib[key] = f"#{name}-{value[1:]}" if key == "href" else renamed


def _themed(svg: str) -> str:
    for colour, variable in _VARIABLES.items():
        svg = svg.replace(f": {colour}", f": var(--{variable})")
    return svg
