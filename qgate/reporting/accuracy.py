"""What costs int8 its accuracy, as a table or as JSON."""

from __future__ import annotations

import io
import math
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.measure import Measurement
from rich.text import Text

from qgate.engine.noise import by_own_noise
from qgate.reporting.explain import print_wrapped
from qgate.reporting.tables import add_columns, new_table
from qgate.reporting.text import printable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rich.table import Table

    from qgate.engine.accuracy import AccuracyExplanation
    from qgate.quantization.sensitivity import LayerNoise

__all__ = ["as_json", "as_text"]

_ROWS = 12
_UNLIMITED = 10_000


def as_json(explanation: AccuracyExplanation) -> dict[str, Any]:
    """Give everything that was measured, ratios in dB, null where they are infinite; `layers` are in running order."""
    worth = explanation.worth
    return {
        "backend": explanation.backend,
        "quantized_anew": explanation.anew or None,
        "num_samples": explanation.num_samples,
        "output_snr": _number(_decibels(explanation.noise)),
        "worst": [layer.layer for layer in by_own_noise(explanation.layers)[:3]],
        "layers": [_layer(layer) for layer in explanation.layers],
        "held_out": {
            "samples": worth.measured_on or None,
            "reason": worth.reason or None,
            "float32": worth.float32,
            "int8": worth.int8,
            "kept_float": worth.kept_float,
        },
    }


def as_text(name: str, explanation: AccuracyExplanation, *, width: int = 80, every_layer: bool = False) -> str:
    """Write the noise on the outputs, the layers that add most of it, and what the worst are worth in float."""
    stream = io.StringIO()
    console = Console(file=stream, width=width)
    for line in _head(name, explanation):
        print_wrapped(console, line)
    console.print()
    layers = by_own_noise(explanation.layers)
    shown = layers if every_layer else layers[:_ROWS]
    console.print(_fitting_table(console, explanation, shown))
    if len(shown) < len(layers):
        print_wrapped(console, f"and {len(layers) - len(shown)} more, less noisy ones; --all shows them")
    for line in _foot(explanation):
        print_wrapped(console, line)
    return "\n".join(line.rstrip() for line in stream.getvalue().splitlines()) + "\n"


def _layer(layer: LayerNoise) -> dict[str, Any]:
    return {
        "layer": layer.layer,
        "alone": _number(layer.alone.snr),
        "accumulated": _number(layer.accumulated.snr),
    }


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _decibels(noise: float) -> float:
    return -10 * math.log10(noise) if noise else math.inf


def _head(name: str, explanation: AccuracyExplanation) -> Iterator[str]:
    samples = f"{explanation.num_samples} calibration sample{'s' * (explanation.num_samples > 1)}"
    yield f"qgate explain --accuracy: {name}, backend {explanation.backend}, {samples}"
    if explanation.anew:
        yield f"quantized anew, and not kept: {explanation.anew}"
    yield f"int8's raw outputs: {_decibels(explanation.noise):.1f} dB of signal to noise"


def _fitting_table(console: Console, explanation: AccuracyExplanation, layers: Sequence[LayerNoise]) -> Table:
    """Give the table with as many metrics as there is room for."""
    metrics = list(explanation.worth.int8)
    while metrics:
        table = _table(explanation, layers, metrics)
        if Measurement.get(console, console.options.update(max_width=_UNLIMITED), table).maximum <= console.width:
            return table
        metrics.pop()
    return _table(explanation, layers, [])


def _table(explanation: AccuracyExplanation, layers: Sequence[LayerNoise], metrics: Sequence[str]) -> Table:
    worth = explanation.worth
    table = new_table()
    add_columns(table, "layer (dB)", "alone", "accumulated", *(f"{metric} if float" for metric in metrics))
    for layer in layers:
        kept = worth.kept_float.get(layer.layer, {})
        changes = [f"{kept[metric] - worth.int8[metric]:+.4f}" if kept else "" for metric in metrics]
        table.add_row(Text(printable(layer.layer)), f"{layer.alone.snr:.1f}", f"{layer.accumulated.snr:.1f}", *changes)
    return table


def _foot(explanation: AccuracyExplanation) -> Iterator[str]:
    worth = explanation.worth
    yield "alone: float32's values go into the layer; accumulated: int8's, with the noise of all layers before"
    if worth.reason:
        yield f"what keeping a layer float changes was not measured: {worth.reason}"
        return
    values = [f"{name} {worth.float32[name]:.4f} in float32, {value:.4f} in int8" for name, value in worth.int8.items()]
    yield f"if float: the change of int8's metric where that layer is kept float, on {worth.measured_on}"
    yield f"there: {'; '.join(values)}"
