"""What int8 makes of each layer, in terms of the user's modules."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch.ao.quantization.fx.fuse import fuse
from torch.ao.quantization.fx.tracer import QuantizationTracer
from torch.fx.node import map_aggregate

from qgate.quantization.corrections.equalization import equalize
from qgate.quantization.prepare import matching, quiet_torch_ao
from qgate.quantization.readers import ELEMENTWISE

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch.ao.quantization.backend_config import BackendConfig

__all__ = ["FloatGraph", "Inputs", "LayerError", "float_graph", "kernel_errors", "layer_errors", "signal_to_noise"]

Inputs = tuple[torch.Tensor, ...]


@dataclass(frozen=True)
class FloatGraph:
    """A float32 module, traced and fused as a backend does it; `names` gives each node's name in the user's model."""

    module: torch.fx.GraphModule
    names: dict[str, str]


@dataclass(frozen=True)
class LayerError:
    """The error of one layer.

    `layer` names it as the user knows it. `snr` is the signal-to-noise ratio of its output in dB, -inf where the
    output is not `finite` and NaN where float32's is zero. Of a quantization of its output there are also `clipped`,
    the share of values that `scale` and `zero_point` cannot represent, and `span`, float32's least and greatest value.
    """

    layer: str
    snr: float
    finite: bool
    clipped: float | None = None
    scale: float | None = None
    zero_point: int | None = None
    span: tuple[float, float] | None = None


def float_graph(
    module: torch.nn.Module, config: BackendConfig, non_traceable: Sequence[str] = (), equalized: Inputs | None = None
) -> FloatGraph:
    """Trace a float32 module and fuse what the backend fuses: its nodes have the names of the reference graph's.

    Where that was equalized, its layers are only comparable with `equalized` ones; example inputs are needed for that.
    """
    module = copy.deepcopy(module).eval()
    tracer = QuantizationTracer(matching(module, non_traceable, "non_traceable"), [])
    with quiet_torch_ao():
        traced = torch.fx.GraphModule(module, tracer.trace(module))
        names = {node.name: _name(node, tracer.node_name_to_scope[node.name][0]) for node in traced.graph.nodes}
        fused = fuse(traced, is_qat=False, backend_config=config)
        if equalized is not None:
            equalize(fused, equalized)
        return FloatGraph(fused, names)


def _name(node: torch.fx.Node, scope: str) -> str:
    if node.op == "call_module":
        return str(node.target)
    function = getattr(node.target, "__name__", node.target)
    return f"{function} in {scope}" if scope else str(function)


def layer_errors(floats: FloatGraph, reference: torch.fx.GraphModule, inputs: Inputs) -> list[LayerError]:
    """Give the errors of the layers of a reference graph, in the order in which they run, on a batch of inputs.

    Every layer is given float32's values, so that its error is its own and none is inherited.
    """
    walk = _OwnErrors(floats, reference)
    with torch.no_grad(), quiet_torch_ao():
        walk.run(*(value.clone() for value in inputs))
    return walk.errors


def kernel_errors(
    floats: FloatGraph, reference: torch.fx.GraphModule, lowered: torch.fx.GraphModule, inputs: Inputs
) -> list[LayerError]:
    """Give the errors of a lowered graph's layers against the reference graph, in the order in which they run.

    These are inherited: of several that are bad the first is to blame.
    """
    expected, found = _Values(reference), _Values(lowered)
    with torch.no_grad(), quiet_torch_ao():
        for walk in (expected, found):
            walk.run(*(value.clone() for value in inputs))
    return [
        LayerError(floats.names[name], signal_to_noise(expected.values[name], value), _is_finite(value))
        for name, value in found.values.items()
        if name in expected.values and name in floats.names
    ]


def signal_to_noise(signal: torch.Tensor, found: torch.Tensor) -> float:
    """Give the power of `signal` over that of its difference to `found`, in dB.

    It is infinite where they are equal, -inf where the difference is not finite, NaN where only the signal is zero.
    """
    signal, found = signal.double(), found.double()
    power, noise = float(signal.square().sum()), float((signal - found).square().sum())
    if not math.isfinite(noise):
        return -math.inf
    if not noise:
        return math.inf
    return 10 * math.log10(power / noise) if power else math.nan


class _OwnErrors(torch.fx.Interpreter):
    """Runs a reference graph; the error of each result is noted, and the result replaced by float32's."""

    def __init__(self, floats: FloatGraph, reference: torch.fx.GraphModule) -> None:
        super().__init__(reference)
        self.names = floats.names
        self.floats = dict(floats.module.named_modules(remove_duplicate=False))
        self.errors: list[LayerError] = []

    def run_node(self, n: torch.fx.Node) -> Any:
        """Run one node on float32's values, and give float32's value."""
        args, kwargs = self.fetch_args_kwargs_from_env(n)
        if n.op == "call_module":
            found = self.call_module(str(n.target), map_aggregate(args, _copy), kwargs)
            module = self.floats[str(n.target)]
            bias = _bias(module, args)
            real = module(*args, **kwargs)
            if isinstance(real, torch.Tensor) and real.is_floating_point():
                snr = signal_to_noise(real - bias, found - bias)
                self.errors.append(LayerError(str(n.target), snr, _is_finite(found)))
            return real
        value = super().run_node(n)
        if isinstance(value, torch.Tensor) and value.is_quantized:
            self.errors.append(self._quantization_error(n, args[0], value))
            return args[0]  # `dequantize` gives it back as it is
        return value

    def _quantization_error(self, node: torch.fx.Node, real: torch.Tensor, value: torch.Tensor) -> LayerError:
        found, source = value.dequantize(), node.all_input_nodes[0]
        reader = self._reader(node)
        snr = signal_to_noise(reader(real), reader(found))
        error = LayerError(self.names.get(source.name, source.name), snr, _is_finite(found))
        if value.qscheme() != torch.per_tensor_affine:
            return error
        scale, zero_point, span = value.q_scale(), value.q_zero_point(), (float(real.min()), float(real.max()))
        return LayerError(error.layer, snr, error.finite, _clipped(real, value), scale, zero_point, span)

    def _reader(self, node: torch.fx.Node) -> Callable[[torch.Tensor], torch.Tensor]:
        """Find the activation function that alone reads a value, for what counts is the error behind it."""
        readers = {user for dequantized in node.users for user in dequantized.users}
        reader = self.floats.get(str(readers.pop().target)) if len(readers) == 1 else None
        return (lambda value: reader(value.clone())) if isinstance(reader, ELEMENTWISE) else _as_is


class _Values(torch.fx.Interpreter):
    """Keeps the values of a reference or lowered graph by node, as they are behind their quantization."""

    def __init__(self, module: torch.fx.GraphModule) -> None:
        super().__init__(module)
        self.values: dict[str, torch.Tensor] = {}

    def run_node(self, n: torch.fx.Node) -> Any:
        """Run one node and keep its value."""
        value = super().run_node(n)
        if isinstance(value, torch.Tensor) and n.op in ("call_module", "call_function", "call_method"):
            self.values[_quantized_node(n).name] = value.dequantize().clone()
        return value


def _quantized_node(node: torch.fx.Node) -> torch.fx.Node:
    """Give the node whose value a quantize or dequantize node hands on; any other node itself."""
    while node.target in ("dequantize", torch.quantize_per_tensor, torch.quantize_per_channel):
        node = node.all_input_nodes[0]
    return node


def _bias(module: torch.nn.Module, args: tuple[Any, ...]) -> torch.Tensor | float:
    """Give what one of torch's layers makes of zero: behind a great bias, wrong weights would hardly be seen."""
    has_weights = type(module).__module__.startswith("torch.") and next(module.parameters(), None) is not None
    if not has_weights or len(args) != 1 or not isinstance(args[0], torch.Tensor):
        return 0.0
    made = module(torch.zeros_like(args[0]))
    return made if isinstance(made, torch.Tensor) else 0.0


def _clipped(real: torch.Tensor, value: torch.Tensor) -> float:
    """Give the share of values that quantization moves by more than the half step of rounding: those out of range."""
    limits = torch.iinfo(value.int_repr().dtype)
    steps = real.double() / value.q_scale() + value.q_zero_point()
    return float(((steps < limits.min - 0.5) | (steps > limits.max + 0.5)).double().mean())


def _is_finite(value: torch.Tensor) -> bool:
    return bool(torch.isfinite(value.dequantize()).all())  # a float tensor gives itself


def _as_is(value: torch.Tensor) -> torch.Tensor:
    return value


def _copy(value: Any) -> Any:
    return value.clone() if isinstance(value, torch.Tensor) else value  # a module may change its inputs in place
