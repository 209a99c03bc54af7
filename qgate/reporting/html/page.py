"""A result as what the page's template shows."""

from __future__ import annotations

import base64
import hashlib
import json
import math
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2
from markupsafe import Markup

from qgate.details import read_details
from qgate.panels import Curves, Gallery
from qgate.reporting.figures import milliseconds, optional
from qgate.reporting.html import plots
from qgate.reporting.html.gallery import GalleryView, gallery_view
from qgate.reporting.rows import (
    HEADINGS,
    caption,
    footer,
    headline,
    models_worst_first,
    rows,
    worst_first,
)
from qgate.reporting.text import KEPT_TOGETHER
from qgate.results import result_from_document

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from qgate.details import Details, Layers, Times
    from qgate.results import ModelResult, Result

__all__ = ["page"]

_HERE = Path(__file__).parent
_MIN_SLICES = 4  # fewer are read off the table
_ENVIRONMENT = {"cpu": "CPU", "num_threads": "threads", "torch": "torch", "python": "Python"}
_SHORT_COMMIT = 12
_CONTROLS = dict.fromkeys({*range(32), 127} - {ord("\n"), ord("\t")}, "\N{REPLACEMENT CHARACTER}")


@dataclass(frozen=True)
class PlotGroup:
    """Plots under one heading."""

    title: str
    about: str
    plots: list[Markup]


@dataclass(frozen=True)
class LayersView:
    """The plots of layers, and the figures as a table: the layer, and both ratios."""

    num_samples: int
    noise: list[Markup]
    activations: list[Markup]
    rows: list[tuple[str, str, str]]


@dataclass(frozen=True)
class ModelView:
    """All that the page says of one model; `missing` says why a section is not there."""

    anchor: str
    name: str
    caption: str
    rows: list[tuple[str, ...]]
    lines: list[tuple[str, str]]
    intervals: list[Markup]
    curves: list[PlotGroup]
    scatters: list[Markup]
    galleries: list[GalleryView]
    layers: LayersView | None
    latency: list[Markup]
    forms: list[tuple[str, str]]
    recipe: list[tuple[str, str]]
    missing: dict[str, str]


def page(result: Result) -> str:
    """Give the page: that of a result at hand is that of the same result, stored and read again."""
    stored = result_from_document(json.loads(result.to_json()), "a result")
    status, _, said = headline(stored).removeprefix("qgate: ").partition(", ")
    script = _text("page.js")
    models = models_worst_first(stored)
    text = _template().render(
        result=stored,
        status=status,
        headline=_loose(said),
        facts=_facts(stored),
        headings=HEADINGS,
        models=[
            _Drawing(f"m{number}").model(name, model, read_details(model, result.folder))
            for number, (name, model) in enumerate(models, start=1)
        ],
        style=Markup(_text("page.css")),  # noqa: S704  # a file of this package
        script=Markup(script),  # noqa: S704  # a file of this package
        script_sha256=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )
    return text.encode("utf-8", "replace").decode().translate(_CONTROLS)  # JSON may hold halves of characters


def _loose(text: str) -> str:
    """Let a line break where the console would not: a phone is narrower."""
    return text.replace(KEPT_TOGETHER, " ")


def _facts(result: Result) -> list[tuple[str, Any]]:
    """Say when, of what and where the run was."""
    machine = {key: result.environment.get(key) for key in _ENVIRONMENT}
    commit = str(result.environment.get("git_commit") or "")[:_SHORT_COMMIT]
    created = result.created.replace("T", " ").replace("+00:00", " UTC")
    facts = {
        "run": created,
        "configuration": result.config_path,
        "commit": commit,
        **machine,
        "qgate": result.qgate_version,
    }
    return [(_ENVIRONMENT.get(key, key), value) for key, value in facts.items() if value not in (None, "")]


def _text(name: str) -> str:
    return (_HERE / name).read_text(encoding="utf-8")


def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_HERE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html")


class _Drawing:
    """Draws one model's plots; one that cannot be drawn is said to be missing."""

    def __init__(self, anchor: str) -> None:
        self.anchor = anchor
        self.missing: dict[str, str] = {}
        self._drawn = 0

    def model(self, name: str, model: ModelResult, details: Details) -> ModelView:
        """Give what the page shows of a model."""
        return ModelView(
            anchor=self.anchor,
            name=name,
            caption=caption(name, model).removeprefix(f"{name}: "),
            rows=[astuple(row) for row in rows(model)],
            lines=[(label, _loose(text)) for label, text in footer(model)],
            intervals=self._intervals(model),
            curves=[self._curves(panel) for panel in details.panels if isinstance(panel, Curves)],
            scatters=self._scatters(model),
            galleries=[gallery_view(panel) for panel in details.panels if isinstance(panel, Gallery)],
            layers=self._layers(details.layers),
            latency=self._latency(model, details.times),
            forms=_forms(model),
            recipe=[(key, _written(value)) for key, value in model.quantization.items()],
            missing={**details.missing, **self.missing},
        )

    def _draw(self, section: str, draw: Callable[..., str], *drawn: Any) -> list[Markup]:
        self._drawn += 1
        try:
            return [Markup(draw(*drawn, f"{self.anchor}-p{self._drawn}"))]  # noqa: S704  # what `svg_of` gives is escaped
        except Exception as error:  # noqa: BLE001  # figures may be those of another version, or edited by hand
            self.missing[section] = f"a plot could not be drawn ({type(error).__name__}: {error})"
            return []

    def _draw_all(self, section: str, draw: Callable[..., str], every: Iterable[tuple[Any, ...]]) -> list[Markup]:
        return [plot for drawn in every for plot in self._draw(section, draw, *drawn)]

    def _intervals(self, model: ModelResult) -> list[Markup]:
        known = [(verdict,) for verdict in worst_first(model) if verdict.interval]
        return self._draw_all("verdicts", plots.interval, known)

    def _curves(self, panel: Curves) -> PlotGroup:
        drawn = self._draw_all("panels", plots.curves, [(panel, plot) for plot in panel.plots])
        return PlotGroup(panel.title, panel.about, drawn)

    def _scatters(self, model: ModelResult) -> list[Markup]:
        return self._draw_all("slices", plots.scatter, _sliced(model))

    def _layers(self, layers: Layers | None) -> LayersView | None:
        if layers is None:
            return None
        return LayersView(
            num_samples=layers.num_samples,
            noise=self._draw("layers", plots.noise, layers),
            activations=self._draw_all("layers", plots.activation, [(each,) for each in layers.worst]),
            rows=[(each.layer, _decibels(each.alone), _decibels(each.accumulated)) for each in layers.ratios],
        )

    def _latency(self, model: ModelResult, times: Times | None) -> list[Markup]:
        form = str(model.metrics.get("speedup", {}).get("baseline_form"))
        return self._draw("times", plots.latency, times, form) if times else []


def _sliced(model: ModelResult) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Give the metrics that have values for enough slices of a kind."""
    for metric, figures in model.metrics.items():
        for kind, slices in (figures.get("slices") or {}).items():
            if len(slices) >= _MIN_SLICES:
                yield metric, kind, slices


def _forms(model: ModelResult) -> list[tuple[str, str]]:
    forms = model.metrics.get("speedup", {}).get("forms") or {}
    return [(form, optional(milliseconds, time)) for form, time in forms.items()]


def _decibels(ratio: float) -> str:
    return f"{ratio:.1f} dB" if math.isfinite(ratio) else "no noise" if ratio > 0 else "noise only"


def _written(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
