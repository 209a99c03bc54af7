"""The noise of each layer as a picture, drawn by matplotlib (the extra `plot`)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from qgate.errors import QGateError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from qgate.engine.accuracy import AccuracyExplanation
    from qgate.quantization.sensitivity import LayerNoise

__all__ = ["check_plot", "plot_accuracy"]

_INCHES_A_LAYER, _MIN_INCHES, _HEIGHT = 0.18, 6.0, 5.0
_MAX_DECIBELS = 100.0  # beyond, the noise is float32's own rounding, and a point would press all others flat


def check_plot(path: Path) -> None:
    """Raise `QGateError` where there is no matplotlib, or where it cannot write such a file: before anything slow."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
    except ImportError:
        raise QGateError("--plot needs matplotlib; install it: pip install 'pytest-qgate[plot]'") from None
    known = sorted(FigureCanvasAgg.get_supported_filetypes())
    if path.suffix.removeprefix(".").lower() not in known:
        raise QGateError(f'--plot cannot write a "{path.suffix}" file; name one of {", ".join(known)}', path=path)


def plot_accuracy(name: str, explanation: AccuracyExplanation, path: Path) -> None:
    """Draw both ratios of each layer, in running order, into a file. Raises `QGateError` where it cannot be written."""
    from matplotlib.figure import Figure

    layers = explanation.layers
    figure = Figure(figsize=(max(_MIN_INCHES, _INCHES_A_LAYER * len(layers)), _HEIGHT), layout="constrained")
    axes = figure.subplots()
    for kind in ("alone", "accumulated"):
        axes.plot(range(len(layers)), _ratios(layers, kind), marker=".", label=kind)
    axes.set_xticks(range(len(layers)), [layer.layer for layer in layers], rotation=90, fontsize="x-small")
    axes.set_title(f"{name}, backend {explanation.backend}: signal to int8's noise")
    axes.set_ylabel("dB")
    axes.grid(visible=True, alpha=0.3)
    axes.legend()
    _save(figure, path)


def _ratios(layers: Sequence[LayerNoise], kind: str) -> list[float]:
    """Give the ratios of all layers, with gaps where there is no noise, or nothing else."""
    ratios = [getattr(layer, kind).snr for layer in layers]
    return [ratio if abs(ratio) < _MAX_DECIBELS else math.nan for ratio in ratios]


def _save(figure: Any, path: Path) -> None:
    try:
        figure.savefig(path)
    except OSError as error:
        raise QGateError(f"the plot cannot be written: {error.strerror or error}", path=path) from error
