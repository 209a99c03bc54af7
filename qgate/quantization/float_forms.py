"""The float32 arm in the forms that it could ship in."""

from __future__ import annotations

import copy
from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING

import torch
from torch.ao.quantization.fx.tracer import QuantizationTracer
from torch.nn.utils.fusion import fuse_conv_bn_eval

from qgate.quantization.called import called_modules
from qgate.quantization.freeze import freeze
from qgate.quantization.prepare import matching, quiet_torch_ao, reshape_views

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["float_forms"]


def float_forms(
    module: torch.nn.Module, example_inputs: tuple[torch.Tensor, ...], non_traceable: Sequence[str] = ()
) -> dict[str, torch.nn.Module]:
    """Give the forms `eager`, `channels_last` and `frozen`, batch norms folded into convolutions in each.

    `frozen` is a frozen TorchScript with channels-last weights. Where the model cannot be traced to TorchScript, it
    is not among them.
    """
    kept_whole = matching(module, non_traceable, "non_traceable")
    eager = _fold_batch_norms(module, kept_whole)
    channels_last = _ChannelsLast(copy.deepcopy(eager))
    compiled = _ChannelsLast(_with_branches(copy.deepcopy(eager), kept_whole))
    frozen = freeze(compiled, example_inputs)
    forms: dict[str, torch.nn.Module] = {"eager": eager, "channels_last": channels_last}
    return forms if frozen is compiled else {**forms, "frozen": frozen}


def _with_branches(module: torch.fx.GraphModule, kept_whole: Sequence[str]) -> torch.fx.GraphModule:
    """Compile what FX kept whole, in place: a trace keeps only the branch that the example inputs take."""
    for name in called_modules(module).keys() & set(kept_whole):
        with quiet_torch_ao(), suppress(Exception):  # TorchScript reads only a part of Python, and raises anything
            module.set_submodule(name, torch.jit.script(module.get_submodule(name)))
    return module


class _ChannelsLast(torch.nn.Module):
    """A module whose weights, and whose inputs of four dimensions, have their channels last in memory."""

    def __init__(self, module: torch.nn.Module) -> None:
        super().__init__()
        self.module = module
        for weight in module.parameters():
            weight.data = channels_last(weight.data)

    def forward(self, *inputs: torch.Tensor) -> object:
        return self.module(*(channels_last(value) for value in inputs))


def channels_last(value: torch.Tensor) -> torch.Tensor:
    """Give a tensor of four dimensions with its channels last in memory; any other as it is."""
    return value.contiguous(memory_format=torch.channels_last) if value.ndim == 4 else value  # noqa: PLR2004


def _fold_batch_norms(module: torch.nn.Module, kept_whole: list[str]) -> torch.fx.GraphModule:
    root = copy.deepcopy(module).eval()
    graph_module = torch.fx.GraphModule(root, QuantizationTracer(kept_whole, []).trace(root))
    calls = Counter(str(node.target) for node in graph_module.graph.nodes if node.op == "call_module")
    for node in graph_module.graph.nodes:
        convolution = node.args[0] if node.op == "call_module" and node.args else None
        if not (isinstance(convolution, torch.fx.Node) and convolution.op == "call_module"):
            continue
        outer, inner = (graph_module.get_submodule(str(part.target)) for part in (node, convolution))
        alone = len(convolution.users) == 1 and calls[str(convolution.target)] == 1
        if isinstance(outer, torch.nn.BatchNorm2d) and type(inner) is torch.nn.Conv2d and alone:
            graph_module.set_submodule(str(convolution.target), fuse_conv_bn_eval(inner, outer))
            node.replace_all_uses_with(convolution)
            graph_module.graph.erase_node(node)
    reshape_views(graph_module)
    graph_module.recompile()
    return graph_module
