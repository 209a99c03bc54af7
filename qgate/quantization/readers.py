"""What reads a quantized value decides how it is best quantized: observers are told by their graph."""

from __future__ import annotations

from typing import Any

import torch

from qgate.quantization.observers import ActivationObserver

__all__ = ["read_through", "reduce_activations"]

_MATMUL_MODULES = (
    torch.nn.Conv1d,
    torch.nn.Conv2d,
    torch.nn.Conv3d,
    torch.nn.ConvTranspose1d,
    torch.nn.ConvTranspose2d,
    torch.nn.Linear,
)
# The names in torch.nn.functional are these very functions.
_MATMUL_FUNCTIONS: set[Any] = {
    torch.conv1d,
    torch.conv2d,
    torch.conv3d,
    torch.conv_transpose1d,
    torch.conv_transpose2d,
    torch.conv_transpose3d,
    torch.nn.functional.linear,
    torch.matmul,
    torch.bmm,
}
ELEMENTWISE = (
    torch.nn.SiLU,
    torch.nn.GELU,
    torch.nn.Mish,
    torch.nn.Hardswish,
    torch.nn.ELU,
    torch.nn.LeakyReLU,
    torch.nn.Sigmoid,
    torch.nn.Tanh,
)

Modules = dict[str, torch.nn.Module]


def read_through(prepared: torch.fx.GraphModule) -> None:
    """Tell each observer whose values only an elementwise module reads which one it is."""
    modules: Modules = dict(prepared.named_modules(remove_duplicate=False))
    for observer, nodes in _observers(prepared, modules).items():
        readers = {modules.get(str(user.target)) for node in nodes for user in node.users}
        reader = readers.pop() if len(readers) == 1 else None
        if isinstance(reader, ELEMENTWISE):
            observer.read_through = reader.forward  # the module itself would become a part of the observer


def reduce_activations(prepared: torch.fx.GraphModule) -> None:
    """Reduce the range of observers whose values an int8 multiplication reads; other values cannot saturate it."""
    modules: Modules = dict(prepared.named_modules(remove_duplicate=False))
    for observer, nodes in _observers(prepared, modules).items():
        if any(_multiplies(user, modules) for node in nodes for user in node.users):
            observer.narrow()


def _observers(prepared: torch.fx.GraphModule, modules: Modules) -> dict[ActivationObserver, list[torch.fx.Node]]:
    """Find the nodes of each observer: one may serve several, e.g. all inputs of a concatenation."""
    found: dict[ActivationObserver, list[torch.fx.Node]] = {}
    for node in prepared.graph.nodes:
        observer = modules.get(str(node.target)) if node.op == "call_module" else None
        if isinstance(observer, ActivationObserver):
            found.setdefault(observer, []).append(node)
    return found


def _multiplies(node: torch.fx.Node, modules: Modules) -> bool:
    if node.op == "call_function":
        return node.target in _MATMUL_FUNCTIONS
    module = modules.get(str(node.target)) if node.op == "call_module" else None
    first = module[0] if isinstance(module, torch.nn.Sequential) and len(module) else module
    return isinstance(first, _MATMUL_MODULES)
