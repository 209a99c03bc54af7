"""Where int8's time goes, as a table or as JSON."""

from __future__ import annotations

import io
import textwrap
from collections import defaultdict
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.measure import Measurement
from rich.text import Text

from qgate.reporting.tables import add_columns, new_table
from qgate.reporting.text import printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from rich.table import Table

    from qgate.engine.explain import Explanation
    from qgate.quantization.operations import Kind
    from qgate.quantization.profile import LayerTime, NodeTime, Profile

__all__ = ["as_json", "as_text", "print_wrapped"]

_ROWS = 12
_UNLIMITED = 10_000
# How each kind is called in the totals, and what its column is headed.
_KINDS: dict[Kind, tuple[str, str]] = {
    "kernel": ("int8 kernels", "kernel"),
    "table": ("byte tables", "table"),
    "fallback": ("kernels not fused", "unfused"),
    "conversion": ("conversions", "convert"),
    "float": ("float islands", "float"),
    "other": ("other nodes", "other"),
}


def as_json(explanation: Explanation) -> dict[str, Any]:
    """Give everything that was measured, times in seconds; `layers` are in the order in which they run."""
    profile, ratio = explanation.profile, explanation.ratio
    return {
        "backend": explanation.backend,
        "quantized_anew": explanation.anew or None,
        "num_threads": explanation.num_threads,
        "rounds": profile.rounds,
        "required_speedup": ratio if explanation.limited else None,
        "seconds": {"float32": profile.float32, "int8": profile.int8, "shipped": profile.shipped},
        "int8": {**{kind: profile.seconds(kind) for kind in _KINDS}, "between": profile.between},
        "kernels": explanation.kernels,
        "worst": [layer.layer for layer in _worst(explanation)],
        "layers": [_layer(layer, ratio) for layer in profile.layers],
    }


def as_text(name: str, explanation: Explanation, *, width: int = 80, every_layer: bool = False) -> str:
    """Write the totals, the layers that cost int8 most, and what its nodes are, for `width` columns."""
    stream = io.StringIO()
    console = Console(file=stream, width=width)
    for line in _head(name, explanation):
        print_wrapped(console, line)
    console.print()
    layers = explanation.profile.worst(explanation.ratio)
    shown = layers if every_layer else layers[:_ROWS]
    console.print(_fitting_table(console, explanation, shown))
    for line in [*_rest(layers[len(shown) :]), *_foot(explanation)]:
        print_wrapped(console, line)
    return "\n".join(line.rstrip() for line in stream.getvalue().splitlines()) + "\n"


def print_wrapped(console: Console, line: str) -> None:
    """Print a line, wrapped below itself between words."""
    wrapped = textwrap.wrap(
        printable(line), console.width, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False
    )
    console.print("\n".join(wrapped), soft_wrap=True, markup=False, highlight=False)


def _worst(explanation: Explanation) -> list[LayerTime]:
    return [layer for layer in explanation.profile.worst(explanation.ratio)[:3] if layer.excess(explanation.ratio) > 0]


def _layer(layer: LayerTime, ratio: float) -> dict[str, Any]:
    nodes = [_node(node) for node in layer.nodes]
    return {
        "layer": layer.layer,
        "float32": layer.float32,
        "int8": layer.int8,
        "excess": layer.excess(ratio),
        "nodes": nodes,
    }


def _node(node: NodeTime) -> dict[str, Any]:
    operation = node.operation
    described = {"node": node.node, "what": operation.what, "kind": operation.kind, "kernel": operation.kernel}
    return {**described, "seconds": node.seconds, "reason": node.reason or None}


def _head(name: str, explanation: Explanation) -> Iterator[str]:
    profile = explanation.profile
    threads = f"{explanation.num_threads} thread{'s' * (explanation.num_threads > 1)}"
    yield f"qgate explain: {name}, backend {explanation.backend}, {threads}, medians of {profile.rounds} rounds"
    if explanation.anew:
        yield f"quantized anew, and not kept: {explanation.anew}"
    required = f"; the limit demands {explanation.ratio:g}x" if explanation.limited else ""
    yield (
        f"float32 {_ms(profile.float32)} ms, int8 {_ms(profile.int8)} ms ({profile.float32 / profile.int8:.2f}x), "
        f"int8 as it ships {_ms(profile.shipped)} ms{required}"
    )
    shares = [(label, profile.seconds(kind)) for kind, (label, _) in _KINDS.items()]
    spent = [(label, seconds) for label, seconds in [*shares, ("between nodes", profile.between)] if seconds]
    total = sum(seconds for _, seconds in spent)
    yield "int8's time: " + ", ".join(f"{label} {seconds / total:.1%}" for label, seconds in spent)


def _fitting_table(console: Console, explanation: Explanation, layers: list[LayerTime]) -> Table:
    """Give the table, without the kernels' names where it would be too wide."""
    table = _table(explanation, layers, named=True)
    unlimited = console.options.update(max_width=_UNLIMITED)
    if Measurement.get(console, unlimited, table).maximum <= console.width:
        return table
    return _table(explanation, layers, named=False)


def _table(explanation: Explanation, layers: list[LayerTime], *, named: bool) -> Table:
    kinds = [kind for kind in _KINDS if _is_spent(explanation.profile, kind)]
    table = new_table()
    add_columns(table, "layer (ms)", "float32", "int8", "excess", *(_KINDS[kind][1] for kind in kinds))
    if named:
        table.add_column("by", no_wrap=True)
    for layer in layers:
        spent = [_ms(layer.seconds(kind)) if layer.seconds(kind) else "" for kind in kinds]
        excess = f"{layer.excess(explanation.ratio) * 1e3:+.2f}"
        kernel = [", ".join(_kernels_of(layer))] if named else []
        cells = (layer.layer, _ms(layer.float32), _ms(layer.int8), excess, *spent, *kernel)
        table.add_row(*(Text(printable(cell)) for cell in cells))
    return table


def _is_spent(profile: Profile, kind: Kind) -> bool:
    """Say whether nodes of a kind take time worth a column; views take none."""
    return kind == "kernel" or (kind != "other" and profile.seconds(kind) > 0)


def _kernels_of(layer: LayerTime) -> Iterable[str]:
    """Name the kernels of a layer that multiply; a layer without any has none worth a name."""
    named = [node.operation.kernel for node in layer.nodes if node.operation.kind in ("kernel", "fallback")]
    return dict.fromkeys(kernel for kernel in named if kernel != "torch")


def _rest(layers: list[LayerTime]) -> Iterator[str]:
    if layers:
        float32, int8 = (sum(getattr(layer, arm) for layer in layers) for arm in ("float32", "int8"))
        yield f"and {len(layers)} more: float32 {_ms(float32)} ms, int8 {_ms(int8)} ms; --all shows them"


def _foot(explanation: Explanation) -> Iterator[str]:
    beyond = f"float32's / {explanation.ratio:g}" if explanation.limited else "float32's"
    yield f"excess: int8's time beyond {beyond}"
    nodes = [node for layer in explanation.profile.layers for node in layer.nodes]
    yield from _listed("int8 kernels", (node for node in nodes if node.operation.kind == "kernel"))
    yield from _listed("float islands", (node for node in nodes if node.operation.kind == "float"))
    yield from _listed("not fused", (node for node in nodes if node.operation.kind == "fallback"))
    yield f"ran: {', '.join(f'{kernel} ({count})' for kernel, count in explanation.kernels.items())}"


def _listed(label: str, nodes: Iterable[NodeTime]) -> Iterator[str]:
    """List nodes by what they are and why, those that take most time first."""
    groups: dict[tuple[str, str], list[float]] = defaultdict(list)
    for node in nodes:
        groups[node.operation.what, node.reason].append(node.seconds)
    items = sorted(groups.items(), key=lambda item: sum(item[1]), reverse=True)
    said = [
        f"{what} ({len(seconds)}, {_ms(sum(seconds))} ms{f', {reason}' * bool(reason)})"
        for (what, reason), seconds in items
    ]
    if said:
        yield f"{label}: {', '.join(said)}"


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:.2f}"
