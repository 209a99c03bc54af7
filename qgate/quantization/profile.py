"""Where the time goes: both arms run node by node, and the nodes of a layer of the user's are added up."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

import torch
from torch import fx

from qgate.quantization.byte_table import apply_table
from qgate.quantization.float_forms import channels_last
from qgate.quantization.grouping import float_layers, int8_layers
from qgate.quantization.layers import float_graph
from qgate.quantization.operations import CALLS, TABLE, operations, table_of
from qgate.quantization.prepare import quiet_torch_ao

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from torch.ao.quantization.backend_config import BackendConfig

    from qgate.quantization.layers import FloatGraph
    from qgate.quantization.operations import Inputs, Kind, Operation

__all__ = ["Budget", "LayerTime", "NodeTime", "Profile", "Subject", "profile"]

_WARMUP_ROUNDS = 2
_LEAST_ROUNDS = 3


@dataclass(frozen=True)
class Budget:
    """How long to measure: `rounds` rounds, fewer where `max_seconds` have passed, but at least three."""

    rounds: int
    max_seconds: float = 30.0


@dataclass(frozen=True)
class Subject:
    """What is measured: a float32 module, its lowered graph, and what ships; patterns say what the recipe keeps float.

    `engine` names the kernels that oneDNN does not tell of.
    """

    module: torch.nn.Module
    lowered: fx.GraphModule
    shipped: torch.nn.Module
    inputs: Inputs
    config: BackendConfig
    engine: str
    ignored_scope: Sequence[str] = ()
    non_traceable: Sequence[str] = ()


@dataclass(frozen=True)
class NodeTime:
    """A node of the int8 graph: what it is, its seconds, and of a float one the `reason` why it is float."""

    node: str
    operation: Operation
    seconds: float
    reason: str = ""


@dataclass(frozen=True)
class LayerTime:
    """A layer of the user's: its seconds in float32, and the nodes that int8 makes of it."""

    layer: str
    float32: float
    nodes: tuple[NodeTime, ...]

    @property
    def int8(self) -> float:
        """Give its seconds in int8."""
        return sum(node.seconds for node in self.nodes)

    def seconds(self, kind: Kind) -> float:
        """Give its seconds in int8 nodes of one kind."""
        return sum(node.seconds for node in self.nodes if node.operation.kind == kind)

    def excess(self, ratio: float) -> float:
        """Give the seconds that int8 takes beyond those of a layer `ratio` times as fast as float32's."""
        return self.int8 - self.float32 / ratio


@dataclass(frozen=True)
class Profile:
    """The layers in the order in which they run; the seconds of both graphs as a whole, and of the form that ships."""

    layers: tuple[LayerTime, ...]
    float32: float
    int8: float
    shipped: float
    rounds: int

    def seconds(self, kind: Kind) -> float:
        """Give the seconds in int8 nodes of one kind."""
        return sum(layer.seconds(kind) for layer in self.layers)

    @property
    def between(self) -> float:
        """Give the seconds that int8 spends between its nodes; noise may make the nodes' sum the greater."""
        return max(self.int8 - sum(layer.int8 for layer in self.layers), 0.0)

    def worst(self, ratio: float) -> list[LayerTime]:
        """Order the layers by what each adds to the time beyond that of an int8 model `ratio` times as fast."""
        return sorted(self.layers, key=lambda layer: layer.excess(ratio), reverse=True)


def profile(subject: Subject, budget: Budget, advance: Callable[[], None]) -> Profile:
    """Measure each node of both arms in interleaved rounds and give medians; `advance` hears of each round.

    One thread is timed by its time on the core, several by the wall clock. Torch's thread count is the caller's to set.
    """
    floats = float_graph(subject.module, subject.config, subject.non_traceable)
    found = operations(subject.lowered, subject.inputs, subject.engine)
    for weight in floats.module.parameters():
        weight.data = channels_last(weight.data)
    with torch.inference_mode(), quiet_torch_ao():
        rounds = _rounds(floats.module, subject, budget, advance)
    return _profile(subject, floats, found, rounds)


Seconds = dict[str, float]


@dataclass(frozen=True)
class _Round:
    """The seconds of each node of both arms; and of the float32 graph, the int8 graph and what ships, as a whole."""

    float32: Seconds
    int8: Seconds
    whole: tuple[float, ...]


def _rounds(floats: fx.GraphModule, subject: Subject, budget: Budget, advance: Callable[[], None]) -> list[_Round]:
    bench = _Bench(subject.inputs, time.thread_time if torch.get_num_threads() == 1 else time.perf_counter)
    forms = (floats, subject.lowered, subject.shipped)
    for _ in range(_WARMUP_ROUNDS):
        for form in forms:
            bench.whole(form)
    deadline = time.perf_counter() + budget.max_seconds
    rounds: list[_Round] = []
    while len(rounds) < budget.rounds and (len(rounds) < _LEAST_ROUNDS or time.perf_counter() < deadline):
        rounds.append(_Round(bench.nodes(floats), bench.nodes(subject.lowered), tuple(map(bench.whole, forms))))
        advance()
    return rounds


@dataclass(frozen=True)
class _Bench:
    """What graphs run on, and by which clock."""

    inputs: Inputs
    clock: Callable[[], float]

    def nodes(self, module: fx.GraphModule) -> Seconds:
        """Run a graph node by node."""
        walk = _Clocked(module, self.clock)
        walk.run(*(value.clone() for value in self.inputs))
        return walk.seconds

    def whole(self, module: torch.nn.Module) -> float:
        """Run a form as it is."""
        given = [value.clone() for value in self.inputs]
        begin = self.clock()
        module(*given)
        return self.clock() - begin


class _Clocked(fx.Interpreter):
    """Times each node of a graph."""

    def __init__(self, module: fx.GraphModule, clock: Callable[[], float]) -> None:
        super().__init__(module)
        self.modules = dict(module.named_modules(remove_duplicate=False))
        self.clock = clock
        self.seconds: Seconds = {}

    def run_node(self, n: fx.Node) -> Any:
        """Run one node on the clock."""
        if n.op not in CALLS:
            return super().run_node(n)
        args, kwargs = self.fetch_args_kwargs_from_env(n)
        run = getattr(self, n.op)
        begin = self.clock()
        value = run(n.target, args, kwargs)
        self.seconds[n.name] = self.clock() - begin
        table = table_of(self.modules.get(str(n.target))) if n.op == "call_module" else None
        if table is not None:
            self._split(n.name, value.clone(), table)
        return value

    def _split(self, name: str, value: torch.Tensor, table: torch.Tensor) -> None:
        """Take the table's time, measured once more on a copy, from that of the node."""
        begin = self.clock()
        apply_table(value, table)
        spent = min(self.clock() - begin, self.seconds[name])
        self.seconds[name] -= spent
        self.seconds[name + TABLE] = spent


def _profile(subject: Subject, floats: FloatGraph, found: Mapping[str, Operation], rounds: list[_Round]) -> Profile:
    of_floats, of_int8 = float_layers(floats), int8_layers(subject.lowered, floats)
    float32 = dict.fromkeys(dict.fromkeys([*of_floats.values(), *of_int8.values()]), 0.0)
    nodes: dict[str, list[NodeTime]] = {layer: [] for layer in float32}
    for name, seconds in _medians([run.float32 for run in rounds]).items():
        float32[of_floats[name]] += seconds
    reasons = _reasons(subject, floats, found)
    for name, seconds in _medians([run.int8 for run in rounds]).items():
        layer = of_int8[name.removesuffix(TABLE)]
        nodes[layer].append(NodeTime(name, found[name], seconds, reasons.get(name, "")))
    layers = tuple(LayerTime(layer, seconds, tuple(nodes[layer])) for layer, seconds in float32.items())
    whole = [statistics.median(seconds) for seconds in zip(*(run.whole for run in rounds), strict=True)]
    spent = tuple(layer for layer in layers if layer.int8 or layer.float32)
    return Profile(spent, float32=whole[0], int8=whole[1], shipped=whole[2], rounds=len(rounds))


def _medians(rounds: list[Seconds]) -> Seconds:
    return {name: statistics.median(seconds[name] for seconds in rounds) for name in rounds[0]}


def _reasons(subject: Subject, floats: FloatGraph, found: Mapping[str, Operation]) -> dict[str, str]:
    """Say of each float node of the int8 graph why it is float."""
    modules = dict(subject.lowered.named_modules(remove_duplicate=False))
    patterns = {pattern.pattern for pattern in subject.config.configs if not isinstance(pattern.pattern, tuple)}
    reasons = {}
    for node in subject.lowered.graph.nodes:
        if node.name in found and found[node.name].kind == "float":
            target: Any = type(modules[str(node.target)]) if node.op == "call_module" else node.target
            scope = floats.names.get(node.name, str(node.target)).rpartition(" in ")[2]
            reasons[node.name] = _reason(subject, scope, has_kernel=target in patterns)
    return reasons


def _reason(subject: Subject, scope: str, *, has_kernel: bool) -> str:
    parts = scope.split(".")
    owners = [".".join(parts[:count]) for count in range(1, len(parts) + 1)]
    for key in ("ignored_scope", "non_traceable"):
        if any(fnmatchcase(owner, pattern) for owner in owners for pattern in getattr(subject, key)):
            return f"in {key}"
    return "left float by the lowering" if has_kernel else "no int8 kernel"
