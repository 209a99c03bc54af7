"""Results and details to make pages of, and a reader of pages."""

from __future__ import annotations

from dataclasses import replace
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from qgate.details import Activation, Details, LayerRatio, Layers, Times, details_file, packed
from qgate.panels import CurvePlot, Curves, Gallery, Line, Mark, Picture
from qgate.results import ModelResult, Result, Verdict

if TYPE_CHECKING:
    from pathlib import Path

HOSTILE = (
    "<script>alert(1)</script>",
    "\"quoted\" 'twice' `thrice` \\ & &amp; &lt;",
    'x" onerror="alert(1)',
    "two\nlines\r\n\tand a tab",
    "🦄 emoji \u202e reversed",
    "$\\frac{1$ {{ 7*7 }} {% raw %}",
    "]]></style></script><!-- <img src=//example.org/x>",
    "\x00\x01 control",
    "n" * 300,
)
VOID = {"meta", "link", "img", "input", "br"}
ARMS = ("float32", "int8")


class Reader(HTMLParser):
    """Reads a page: its elements as (tag, attributes), its text, and whether every element is closed in order."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(page)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {key: value or "" for key, value in attrs}))
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open[-1:] not in (["script"], ["style"]):
            self.text += data

    def all(self, tag: str, **attributes: str) -> list[dict[str, str]]:
        """Give the attributes of all elements of a tag that have these, `class_` among others."""
        wanted = {key.rstrip("_"): value for key, value in attributes.items()}
        return [
            found
            for name, found in self.elements
            if name == tag and all(value in found.get(key, "").split() for key, value in wanted.items())
        ]


def picture(name: str, groups: tuple[str, ...], seed: int = 0, side: int = 120) -> Picture:
    """Give a picture of noise with a mark of each kind for each group."""
    pixels = np.random.default_rng(seed).integers(0, 255, (side, side, 3), dtype=np.uint8)
    content = cv2.imencode(".png", pixels)[1].tobytes()
    kinds = (
        ("float32", "both"),
        ("int8", "both"),
        ("float32", "only float32"),
        ("int8", "only int8"),
        ("target", "both"),
        ("target", "missed"),
    )
    marks = tuple(
        Mark((0.1 * index, 0.1, 0.1 * index + 0.3, 0.6), group, side, state, f"{group} 0.50")
        for group in groups
        for index, (side, state) in enumerate(kinds)
    )
    return Picture(name, f"about {name}", content, "image/png", side, side, marks)


def make_details(names: tuple[str, ...] = ("car", "dog", "cat")) -> Details:
    """Give details with every section; names are those of classes, of layers and of pictures."""
    x = tuple(np.linspace(0, 1, 11).tolist())
    lines = tuple(Line(arm, x, tuple(1 - value for value in x)) for arm in ARMS)
    curves = Curves("Precision and recall", "at 0.5", "recall", "precision", tuple(CurvePlot(n, lines) for n in names))
    pictures = [picture(name, (names[index % 2],), index) for index, name in enumerate(names)]
    ratios = [LayerRatio(name, 30.0 + index, 20.0) for index, name in enumerate(names)]
    counts = np.array([5.0, 100.0, 20.0, 0.0, 1.0])
    worst = tuple(Activation(name, -1.0, 0.5, counts, (-0.9, 1.0), 0.01) for name in names[:3])
    rng = np.random.default_rng(0)
    return Details(
        panels=(curves, Gallery("Images that lost most", "the worst first", tuple(pictures))),
        layers=Layers(2, (*ratios, LayerRatio("exact", float("inf"), float("-inf"))), worst),
        times=Times(rng.normal(0.02, 0.001, 50), rng.normal(0.01, 0.001, 50)),
    )


def make_result(names: tuple[str, ...] = ("car", "dog", "cat", "cow"), model: str = "detector") -> Result:
    """Give a result whose slices have these names, with verdicts of every status."""
    slices = {
        name: {"baseline": 0.5, "candidate": 0.4, "drop": 0.1, "relative_drop": 0.2, "support": 10 + index}
        for index, name in enumerate(names)
    }
    metrics: dict[str, dict[str, Any]] = {
        "map": {"baseline": 0.5, "candidate": 0.4, "drop": 0.1, "slices": {"class": slices, "size": {}}},
        "speedup": {
            "baseline": 0.02,
            "candidate": 0.01,
            "value": 2.0,
            "baseline_form": "frozen",
            "forms": {"int8": 0.01},
        },
    }
    verdicts = (
        Verdict("map", "max_drop", 0.05, 0.1, "failed", "; ".join(names), interval=(0.06, 0.14)),
        Verdict("map", "max_drop", 0.2, 0.1, "inconclusive", "wide", {"class": names[0]}, (0.0, 0.3)),
        Verdict("speedup", "lower_bound", 1.5, 2.0, "passed", interval=(1.8, 2.2)),
        Verdict("map", "max_regression", 0.1, None, "error", "nothing is blessed"),
    )
    found = ModelResult(
        {"approach": "ptq", "backend": "fbgemm", "ignored_scope": list(names)},
        None,
        12,
        metrics,
        verdicts,
        {"total": 2.0},
        notes=names,
    )
    environment = {"cpu": names[0], "torch": "2.13.0", "num_threads": 1, "git_commit": "0" * 40}
    return Result("0.1.0", "2026-01-01T00:00:00+00:00", "0" * 64, environment, {model: found}, config_path=names[-1])


def stored(result: Result, details: Details, folder: Path) -> Result:
    """Give the result as a run in `folder` would have it that found these details about each model."""
    content = packed(details)
    for index, (name, model) in enumerate(result.models.items()):
        path = f"details/{index}.details"
        (folder / "details").mkdir(exist_ok=True)
        (folder / path).write_bytes(content)
        result = replace(result, folder=folder).with_model(name, replace(model, details=details_file(content, path)))
    return result
