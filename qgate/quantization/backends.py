"""torch's own int8 backends: one graph form, three engines."""

from __future__ import annotations

import contextlib
import copy
import functools
from typing import TYPE_CHECKING, ClassVar

import torch
from torch.ao.quantization.backend_config import (
    BackendConfig,
    get_fbgemm_backend_config,
    get_onednn_backend_config,
)
from torch.ao.quantization.backend_config.x86 import get_x86_backend_config
from torch.ao.quantization.fx._lower_to_native_backend import _lower_to_native_backend

from qgate.quantization.freeze import freeze
from qgate.quantization.prepare import quiet_torch_ao

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["FbgemmBackend", "OnednnBackend", "X86Backend", "engine", "loses_products", "onednn_config"]


@contextlib.contextmanager
def engine(name: str) -> Iterator[None]:
    """Make `name` torch's quantized engine, which is process-wide state, and put the former one back."""
    former = torch.backends.quantized.engine
    torch.backends.quantized.engine = name
    try:
        yield
    finally:
        torch.backends.quantized.engine = former


class _TorchBackend:
    """An engine of torch.ao: `quantized::` operators on quint8 tensors, weights prepacked by the engine."""

    name: ClassVar[str]

    def is_available(self) -> str | None:
        """Give the reason why torch lacks the engine; None where it has it."""
        if self.name in torch.backends.quantized.supported_engines:
            return None
        return f'this build of torch has no "{self.name}" engine'

    def backend_config(self) -> BackendConfig:
        """Give torch's own configuration for the engine."""
        raise NotImplementedError

    def needs_reduced_range(self) -> bool:
        """Measure whether the engine's kernels saturate on this CPU."""
        return saturates(self.name)

    def lower(self, reference: torch.fx.GraphModule, example_inputs: tuple[torch.Tensor, ...]) -> torch.nn.Module:
        """Replace reference patterns by the engine's operators, prepack weights, and freeze where that is possible."""
        with engine(self.name), quiet_torch_ao():
            return freeze(self.lower_graph(reference), example_inputs)

    def lower_graph(self, reference: torch.fx.GraphModule) -> torch.fx.GraphModule:
        """Do all of `lower` but the freezing: the nodes keep the names of the reference graph's."""
        return self.lower_in_place(copy.deepcopy(reference))

    def lower_in_place(self, graph: torch.fx.GraphModule) -> torch.fx.GraphModule:
        """Do the same as torch does it: `graph` itself is changed."""
        _give_each_call_a_module(graph)
        scopes: dict[str, tuple[str, type]] = {node.name: ("", torch.nn.Module) for node in graph.graph.nodes}
        with engine(self.name), quiet_torch_ao():
            lowered: torch.fx.GraphModule = _lower_to_native_backend(graph, {}, scopes)
            return lowered


def _give_each_call_a_module(graph_module: torch.fx.GraphModule) -> None:
    """Copy a module for each further call: torch's lowering gives a module one output scale, that of its last call."""
    called: set[str] = set()
    for node in graph_module.graph.nodes:
        if node.op != "call_module":
            continue
        if node.target in called:
            original = graph_module.get_submodule(node.target)
            node.target = f"{node.target}_of_{node.name}"
            graph_module.add_submodule(node.target, copy.copy(original))
        called.add(node.target)
    graph_module.recompile()


_TRANSPOSED = "transpose"  # oneDNN's give wrong values where inputs and outputs differ in number
_CONV_ADD = "convadd"  # a summand of another shape corrupts memory, a number is an error, and `alpha` is lost
_PRELU = "prelu"  # torch cannot lower it


def _sound(config: BackendConfig, *defects: str) -> BackendConfig:
    """Leave out the patterns whose description has one of `defects` in it, and PReLU."""
    words = (*defects, _PRELU)
    kept = [pattern for pattern in config.configs if not any(word in str(pattern).lower() for word in words)]
    return BackendConfig(config.name).set_backend_pattern_configs(kept)


def onednn_config() -> BackendConfig:
    """Give torch's configuration for onednn, without what is wrong in it."""
    return _sound(get_onednn_backend_config(), _TRANSPOSED, _CONV_ADD)


class FbgemmBackend(_TorchBackend):
    """FBGEMM's kernels.

    They write bytes only. One scale for outputs of several kinds would cost some of them much of their precision, so
    last layers run in float32, on their int8 weights.
    """

    name: ClassVar[str] = "fbgemm"
    float_outputs: ClassVar[bool] = True

    def backend_config(self) -> BackendConfig:
        """Give torch's configuration for fbgemm."""
        return _sound(get_fbgemm_backend_config())


class X86Backend(_TorchBackend):
    """FBGEMM's or oneDNN's kernels, as torch chooses for each layer."""

    name: ClassVar[str] = "x86"

    def backend_config(self) -> BackendConfig:
        """Give torch's configuration for x86, which takes oneDNN where there is VNNI."""
        return _sound(get_x86_backend_config(), _TRANSPOSED)


class OnednnBackend(_TorchBackend):
    """oneDNN's kernels."""

    name: ClassVar[str] = "onednn"

    def backend_config(self) -> BackendConfig:
        """Give torch's configuration for onednn."""
        return onednn_config()


@functools.cache
def saturates(name: str) -> bool:
    """Measure whether an engine's int8 products lose what 16 bits cannot hold."""
    with engine(name), quiet_torch_ao():
        return loses_products(_multiply)


_PROBES = (
    # in channels, out channels, kernel (0: a linear layer), groups
    (64, 64, 1, 1),
    (32, 32, 3, 1),
    (32, 32, 3, 32),
    (64, 16, 0, 1),
)
_EXACT = 200  # the quantized output, of 255 steps, where no product is lost


def loses_products(multiply: Callable[[torch.Tensor, torch.Tensor, int, float], torch.Tensor]) -> bool:
    """Say whether kernels lose products: without VNNI they add pairs in 16 bits, where 2 * 255 * 127 does not fit.

    `multiply` takes uint8 inputs of scale 1, an int8 weight of scale 1, the number of groups and the scale of its
    result, uint8. It is given a pointwise, a dense, a depthwise and a linear layer, whose every product is the
    greatest; the exact results are the number of products times 255 * 127.
    """
    for inputs, outputs, kernel, groups in _PROBES:
        window = (kernel, kernel) if kernel else ()
        products = inputs // groups * max(kernel, 1) ** 2
        x = torch.full((1, inputs, *(8,) * len(window)), 255, dtype=torch.uint8)
        weight = torch.full((outputs, inputs // groups, *window), 127, dtype=torch.int8)
        if bool((multiply(x, weight, groups, products * 255.0 * 127.0 / _EXACT) != _EXACT).any()):
            return True
    return False


def _multiply(x: torch.Tensor, weight: torch.Tensor, groups: int, scale: float) -> torch.Tensor:
    """Multiply by the engine's quantized operators."""
    outputs = len(weight)
    qx = torch.quantize_per_tensor(x.float(), 1.0, 0, torch.quint8)
    zeros = torch.zeros(outputs, dtype=torch.long)
    qw = torch.quantize_per_channel(weight.float(), torch.ones(outputs), zeros, 0, torch.qint8)
    if x.ndim > 2:  # noqa: PLR2004  # beyond samples and channels
        packed = torch.ops.quantized.conv2d_prepack(qw, None, [1, 1], [0, 0], [1, 1], groups)
        return torch.ops.quantized.conv2d(qx, packed, scale, 0).int_repr()  # type: ignore[no-any-return]
    packed = torch.ops.quantized.linear_prepack(qw, None)
    return torch.ops.quantized.linear(qx, packed, scale, 0).int_repr()  # type: ignore[no-any-return]
