"""The plots of a page, each as an SVG element."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from qgate.reporting.figures import unit_of
from qgate.reporting.html.svg import (
    CARD,
    FLOAT32,
    GRID,
    INK,
    INT8,
    MISSED,
    MUTED,
    PASSED,
    UNSURE,
    drawing,
    label,
    new_figure,
    svg_of,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from numpy.typing import NDArray

    from qgate.details import Activation, Layers, Times
    from qgate.panels import CurvePlot, Curves
    from qgate.results import Verdict

__all__ = ["activation", "curves", "interval", "latency", "noise", "scatter"]

_MAX_DECIBELS = 100.0  # beyond, the noise is float32's own rounding, and a point would press all others flat
_NAMED_LAYERS = 4
_HEIGHT = 2.9
_ROOM = 0.12  # on either side of what a strip shows, as a share
_BINS = 48
_TAIL = 99.0  # percentile of the slower arm that is still shown
_NAMED_SLICES = 3
_APART = 0.07  # of a plot's height: names that are nearer overlap
_COLOURS = {"float32": FLOAT32, "int8": INT8}
_STATUS_COLOURS = {"passed": PASSED, "inconclusive": UNSURE}


def interval(verdict: Verdict, name: str) -> str:
    """Draw a limit that has an interval: the interval, what was measured, and where the limit forbids."""
    with drawing():
        figure = new_figure(0.85)
        _strip(figure.subplots(), verdict)
        described = f"Confidence interval of {verdict.name} against its limit: {verdict.status}"
        return svg_of(figure, name, described)


def _strip(axes: Axes, verdict: Verdict) -> None:
    low, high = verdict.interval or (verdict.measured or 0.0,) * 2
    measured = (low + high) / 2 if verdict.measured is None else verdict.measured
    values = (low, high, measured, verdict.limit_value)
    room = _ROOM * (max(values) - min(values) or 1.0)
    left, right = min(values) - room, max(values) + room
    forbidden = (left, verdict.limit_value) if verdict.limit.startswith("lower_") else (verdict.limit_value, right)
    axes.axvspan(*forbidden, color=MISSED, alpha=0.13, linewidth=0)
    axes.axvline(verdict.limit_value, color=MISSED, linewidth=1.4)
    colour = _STATUS_COLOURS.get(verdict.status, MISSED)
    axes.plot([low, high], [0, 0], color=colour, linewidth=5, alpha=0.45)
    axes.plot([measured], [0], marker="o", color=colour, markersize=6)
    axes.set(xlim=(left, right), ylim=(-1, 1), yticks=[], title=label(verdict.name))
    axes.spines["left"].set_visible(False)
    axes.xaxis.set_major_locator(_few_ticks(5))
    axes.xaxis.set_major_formatter(_written(verdict.metric))
    axes.grid(visible=False)


def _few_ticks(count: int) -> Any:
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(count)


def _written(metric: str) -> Any:
    from matplotlib.ticker import FuncFormatter

    return FuncFormatter(lambda value, _: unit_of(metric).limit(round(value, 10)))


def curves(panel: Curves, plot: CurvePlot, name: str) -> str:
    """Draw the lines of both arms, both axes from 0 to 1; int8 is drawn over float32, and dashed."""
    with drawing():
        figure = new_figure(_HEIGHT)
        axes = figure.subplots()
        for line in plot.lines:
            style = "--" if line.arm == "int8" else "-"
            axes.plot(line.x, line.y, style, color=_COLOURS[line.arm], label=line.arm)
        axes.set(xlim=(0, 1), ylim=(0, 1.02), title=label(plot.title))
        axes.set(xlabel=label(panel.x_label), ylabel=label(panel.y_label))
        axes.legend(loc="best")
        return svg_of(figure, name, f"{panel.title}, {plot.title}, of float32 and int8")


def scatter(metric: str, kind: str, slices: dict[str, dict[str, Any]], name: str) -> str:
    """Draw one point a slice, float32's value against int8's; a point's area grows with its support."""
    known = {key: item for key, item in slices.items() if None not in (item["baseline"], item["candidate"])}
    titles = {}
    with drawing():
        figure = new_figure(_HEIGHT)
        axes = figure.subplots()
        most = max((item["support"] for item in known.values()), default=1) or 1
        ends = [value for item in known.values() for value in (item["baseline"], item["candidate"])]
        span = (min([0.0, *ends]), max([0.0, *ends]) * 1.04 or 1.0)
        axes.plot(span, span, color=MUTED, linewidth=0.8)
        axes.set(xlim=span, ylim=span, xlabel="float32", ylabel="int8", title=label(f"{metric} of each {kind}"))
        for index, (key, item) in enumerate(known.items()):
            before, after = item["baseline"], item["candidate"]
            colour, size = (INT8 if item["drop"] > 0 else MUTED), 3 + 9 * (item["support"] / most) ** 0.5
            gid = f"slice-{index}"
            axes.plot([before], [after], "o", color=colour, alpha=0.65, markersize=size, markeredgewidth=0, gid=gid)
            titles[gid] = f"{key}: {before:.3f} to {after:.3f}, {item['support']} targets"
        _name_losers(axes, known)
        return svg_of(figure, name, f"{metric} of each {kind}, float32 against int8", titles)


def _name_losers(axes: Axes, slices: dict[str, dict[str, Any]]) -> None:
    """Name the slices that lose most, where they lose anything and names have room."""
    low, high = axes.get_ylim()
    named: list[float] = []
    for key, item in sorted(slices.items(), key=lambda entry: -entry[1]["drop"]):
        x, y = item["baseline"], item["candidate"]
        if item["drop"] <= 0 or len(named) == _NAMED_SLICES:
            break
        if any(abs(y - other) < _APART * (high - low) for other in named):
            continue
        named.append(y)
        is_right = x > low + 0.7 * (high - low)
        offset, side = ((-7, -8), "right") if is_right else ((7, -5), "left")
        axes.annotate(label(key)[:18], (x, y), offset, textcoords="offset points", ha=side, color=INK, fontsize=8)


def noise(layers: Layers, name: str) -> str:
    """Draw both ratios of each layer, in running order, and name the noisiest."""
    with drawing():
        figure = new_figure(3.4, 13.0)
        axes = figure.subplots()
        alone = _decibels([ratio.alone for ratio in layers.ratios])
        accumulated = _decibels([ratio.accumulated for ratio in layers.ratios])
        axes.plot(alone, marker="o", markersize=3.5, color=INT8, label="this layer alone")
        axes.plot(accumulated, marker="o", markersize=3.5, color=FLOAT32, label="from the input on")
        for index in np.argsort(np.nan_to_num(alone, nan=np.inf), kind="stable")[:_NAMED_LAYERS].tolist():
            if np.isfinite(alone[index]):
                _name_point(axes, label(layers.ratios[index].layer), index, alone[index])
        axes.set(xlabel="layers in running order", ylabel="signal to noise, dB")
        axes.margins(x=0.02, y=0.15)
        axes.legend(loc="lower left", ncols=2, bbox_to_anchor=(0, 1), borderaxespad=0.2)
        return svg_of(figure, name, "Ratio of signal to int8's noise of each layer, in dB")


def _name_point(axes: Axes, text: str, x: float, y: float) -> None:
    axes.plot([x], [y], "o", color=INT8, markersize=9, fillstyle="none", markeredgewidth=1.2)
    box = {"facecolor": CARD, "edgecolor": "none", "alpha": 0.85, "pad": 1.0}
    axes.annotate(text, (x, y), (0, -16), textcoords="offset points", ha="center", fontsize=8, bbox=box, zorder=4)


def _decibels(ratios: Sequence[float]) -> NDArray[np.float64]:
    """Give ratios with gaps where there is no noise, or nothing else."""
    values = np.array(ratios, dtype=np.float64)
    return np.where(np.abs(values) < _MAX_DECIBELS, values, np.nan)


def activation(found: Activation, name: str) -> str:
    """Draw the histogram of a layer's output, counts on a logarithmic scale, and the range that int8 covers."""
    with drawing():
        figure = new_figure(2.4)
        axes = figure.subplots()
        edges = found.low + found.width * np.arange(len(found.counts) + 1)
        used = np.flatnonzero(found.counts)
        axes.stairs(np.maximum(found.counts, 0.5), edges, baseline=0.5, fill=True, color=FLOAT32, alpha=0.55)
        low, high = found.covered
        axes.axvspan(low, high, color=INT8, alpha=0.12, linewidth=0)
        for bound in found.covered:
            axes.axvline(bound, color=INT8, linewidth=1.4)
        left, right = min(low, edges[used[0]]), max(high, edges[used[-1] + 1])
        room = 0.04 * (right - left)
        axes.set(yscale="log", xlim=(left - room, right + room), title=label(found.layer), ylabel="values")
        axes.set_ylim(bottom=0.5)
        axes.yaxis.set_major_formatter(_powers())
        axes.minorticks_off()
        described = f"Values of {found.layer}: int8 covers {low:.4g} to {high:.4g}, {found.clipped:.2%} lie beyond"
        return svg_of(figure, name, described)


def _powers() -> Any:
    """Write powers of ten without mathematical markup, which names must not be read as."""
    from matplotlib.ticker import EngFormatter

    return EngFormatter(sep="")


def latency(times: Times, baseline_form: str, name: str) -> str:
    """Draw the distributions of both arms' passes, with their medians; the slowest percent is out of sight."""
    with drawing():
        figure = new_figure(_HEIGHT)
        axes = figure.subplots()
        arms = {f"float32 ({baseline_form})": (times.float32 * 1e3, FLOAT32), "int8": (times.int8 * 1e3, INT8)}
        shown = max(np.percentile(values, _TAIL) for values, _ in arms.values())
        bins = np.linspace(min(values.min() for values, _ in arms.values()), shown, _BINS + 1)
        for arm, (values, colour) in arms.items():
            axes.hist(values, bins=bins.tolist(), color=colour, alpha=0.55, label=label(arm))
            axes.axvline(float(np.median(values)), color=colour, linewidth=1.4)
        axes.set(xlabel="milliseconds a pass", ylabel="passes", ylim=(0, None), title="Latency")
        axes.spines["left"].set_color(GRID)
        axes.legend(loc="upper center")
        return svg_of(figure, name, "Distributions of the times of a pass, of float32 and int8")
