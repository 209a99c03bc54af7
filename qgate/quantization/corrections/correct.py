"""Corrections of a reference graph: layer by layer, on calibration data, each behind layers that are corrected."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import torch

from qgate.quantization.corrections.bias import add_to_bias, mean_error
from qgate.quantization.corrections.gptq import can_round, round_weights
from qgate.quantization.corrections.lockstep import Both, Lockstep, float_forward, layer_of
from qgate.quantization.fused.functions import elementwise
from qgate.quantization.prepare import quiet_torch_ao

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from qgate.quantization.corrections.lockstep import Layer, Node

    Function = Callable[[torch.Tensor], torch.Tensor]

__all__ = ["correct", "count_layers", "peak_bytes"]

_CONVERSIONS: set[Any] = {torch.quantize_per_tensor, "dequantize"}


def peak_bytes(reference: torch.fx.GraphModule, sample: tuple[torch.Tensor, ...]) -> int:
    """Give how many bytes `correct` holds at a time for each sample."""
    with torch.no_grad(), quiet_torch_ao():
        return Lockstep(reference).peak_bytes(sample)


def count_layers(reference: torch.fx.GraphModule) -> int:
    """Count the layers of which `correct` tells."""
    calls = (node for node in reference.graph.nodes if node.op == "call_module")
    return sum(layer_of(reference.get_submodule(str(node.target))) is not None for node in calls)


def correct(
    reference: torch.fx.GraphModule,
    samples: Sequence[tuple[torch.Tensor, ...]],
    *,
    rounding: bool,
    bias: bool,
    advance: Callable[[], None],
) -> None:
    """Change the layers of a reference graph in place: with `rounding` their integers, then with `bias` their bias.

    `samples` are preprocessed inputs. A layer that is called more than once is left as it is, and of transposed
    convolutions only the bias is corrected.
    """
    correction = _Correction(reference, rounding=rounding, bias=bias, advance=advance)
    with torch.no_grad(), quiet_torch_ao():
        Lockstep(reference).run(samples, correction.visit)


class _Correction:
    def __init__(
        self, reference: torch.fx.GraphModule, *, rounding: bool, bias: bool, advance: Callable[[], None]
    ) -> None:
        self.modules = dict(reference.named_modules(remove_duplicate=False))
        self.calls = Counter(str(node.target) for node in reference.graph.nodes if node.op == "call_module")
        self.rounding, self.bias, self.advance = rounding, bias, advance

    def visit(self, node: Node, layer: Layer, inputs: list[Both]) -> list[Both]:
        """Correct one layer, and give its outputs."""
        reals = [float_forward(layer, both.real) for both in inputs]
        is_own = self.calls[str(node.target)] == 1
        if self.rounding and is_own and can_round(layer):
            round_weights(layer, inputs)
        outputs = [Both(real, layer(both.found)) for real, both in zip(reals, inputs, strict=True)]
        if self.bias and is_own:
            outputs = self._corrected(node, layer, outputs)
        self.advance()
        return outputs

    def _corrected(self, node: Node, layer: Layer, outputs: list[Both]) -> list[Both]:
        positions = 0 if isinstance(layer, torch.nn.Linear) else len(layer.kernel_size)
        shift = mean_error(outputs, -1 - positions, self._activation(node))
        add_to_bias(layer, shift)
        along = shift.reshape(-1, *[1] * positions)
        return [Both(both.real, both.found + along) for both in outputs]

    def _activation(self, node: Node) -> Function | None:
        """Give the activation that alone reads a layer's output: fused by FX, or behind the output's quantization."""
        module: Any = self.modules[str(node.target)]
        if isinstance(module, torch.nn.Sequential):
            return elementwise(module[1], self.modules) if len(module) > 1 else None
        while len(node.users) == 1:
            (node,) = node.users
            if node.target not in _CONVERSIONS:
                return elementwise(node, self.modules)
        return torch.nn.functional.silu if _is_silu_written_out(node) else None


def _is_silu_written_out(node: Node) -> bool:
    """Say whether a value is read by a product with its own sigmoid, perhaps quantized, and by nothing else."""
    sigmoids = [user for user in node.users if user.target is torch.sigmoid]
    if len(node.users) != 2 or len(sigmoids) != 1:  # noqa: PLR2004  # the sigmoid and the product
        return False
    (end,) = sigmoids
    while len(end.users) == 1:
        (end,) = end.users
        if end.target not in _CONVERSIONS:
            return end.target is torch.mul and node in end.all_input_nodes
    return False
