"""torch's own int8 backends: one graph form, three engines."""

from __future__ import annotations

import contextlib
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
    from collections.abc import Iterator

__all__ = ["FbgemmBackend", "OnednnBackend", "X86Backend", "engine"]


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
        scopes: dict[str, tuple[str, type]] = {node.name: ("", torch.nn.Module) for node in reference.graph.nodes}
        with engine(self.name), quiet_torch_ao():
            lowered: torch.fx.GraphModule = _lower_to_native_backend(reference, {}, scopes)
            return lowered


class FbgemmBackend(_TorchBackend):
    """FBGEMM's kernels."""

    name: ClassVar[str] = "fbgemm"

    def backend_config(self) -> BackendConfig:
        """Give torch's configuration for fbgemm."""
        return get_fbgemm_backend_config()


def _without_transposed(config: BackendConfig) -> BackendConfig:
    """Leave transposed convolutions float: oneDNN's give wrong values where inputs and outputs differ in number."""
    kept = [pattern for pattern in config.configs if "transpose" not in str(pattern).lower()]
    return BackendConfig(config.name).set_backend_pattern_configs(kept)


class X86Backend(_TorchBackend):
    """FBGEMM's or oneDNN's kernels, as torch chooses for each layer."""

    name: ClassVar[str] = "x86"

    def backend_config(self) -> BackendConfig:
        """Give torch's configuration for x86, which takes oneDNN where there is VNNI."""
        return _without_transposed(get_x86_backend_config())


class OnednnBackend(_TorchBackend):
    """oneDNN's kernels."""

    name: ClassVar[str] = "onednn"

    def backend_config(self) -> BackendConfig:
        """Give torch's configuration for onednn."""
        return _without_transposed(get_onednn_backend_config())


@functools.cache
def saturates(name: str) -> bool:
    """Measure whether an engine's int8 products lose what 16 bits cannot hold.

    Kernels without VNNI add pairs of products in 16 bits: 2 * 255 * 127 does not fit, 2 * 127 * 127 does. The probes
    are a pointwise, a dense, a depthwise and a fully connected layer whose every product is the greatest; their
    exact outputs are the number of products times 255 * 127.
    """
    with engine(name), quiet_torch_ao():
        return any(_saturates(*probe) for probe in _PROBES)


_PROBES = (
    # in channels, out channels, kernel, groups
    (64, 64, 1, 1),
    (32, 32, 3, 1),
    (32, 32, 3, 32),
    (64, 16, 0, 1),
)


_EXACT = 200  # the quantized output, of 255 steps, where no product is lost


def _saturates(inputs: int, outputs: int, kernel: int, groups: int) -> bool:
    products = inputs // groups * max(kernel, 1) ** 2
    scale = products * 255.0 * 127.0 / _EXACT
    if kernel:
        x = torch.full((1, inputs, 8, 8), 255.0)
        weight = torch.full((outputs, inputs // groups, kernel, kernel), 127.0)
    else:
        x, weight = torch.full((1, inputs), 255.0), torch.full((outputs, inputs), 127.0)
    qx = torch.quantize_per_tensor(x, 1.0, 0, torch.quint8)
    qw = torch.quantize_per_channel(weight, torch.ones(outputs), torch.zeros(outputs, dtype=torch.long), 0, torch.qint8)
    if kernel:
        packed = torch.ops.quantized.conv2d_prepack(qw, None, [1, 1], [0, 0], [1, 1], groups)
        result = torch.ops.quantized.conv2d(qx, packed, scale, 0)
    else:
        result = torch.ops.quantized.linear(qx, torch.ops.quantized.linear_prepack(qw, None), scale, 0)
    return bool((result.int_repr() != _EXACT).any())
