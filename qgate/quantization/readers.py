"""What reads a quantized value decides how it is best quantized: observers are told by their graph."""

from __future__ import annotations

import copy
import operator
from typing import TYPE_CHECKING, Any

import torch
from torch.ao.quantization import QConfig

from qgate.quantization.moves import JOINS, moves_values, zero_padding
from qgate.quantization.observers import ActivationObserver, ByteObserver

if TYPE_CHECKING:
    from collections.abc import Callable

    from qgate.quantization.observers import Observer

__all__ = [
    "is_multiplication",
    "leave_outputs_float",
    "leave_summands_float",
    "read_overwritten",
    "read_through",
    "reduce_activations",
    "shapes",
    "share_scales",
    "take_bytes",
]

_MATMUL_MODULES = (
    torch.nn.Conv1d,
    torch.nn.Conv2d,
    torch.nn.Conv3d,
    torch.nn.ConvTranspose1d,
    torch.nn.ConvTranspose2d,
    torch.nn.ConvTranspose3d,
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
_IDENTITIES = (torch.nn.Identity, torch.nn.Dropout, torch.nn.Dropout1d, torch.nn.Dropout2d, torch.nn.Dropout3d)
_SUMS: set[Any] = {operator.add, torch.add}
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
        if any(_multiplies(user, modules) for node in nodes for user in _readers(node, modules)):
            observer.narrow()


def take_bytes(prepared: torch.fx.GraphModule, byte_scale: float, weight: Callable[[], Observer]) -> None:
    """Let inputs be bytes, times `byte_scale`, as they are: all 256 of them, whatever the range of other values.

    The layers that read them observe their weights with `weight`, which leaves room for that. Where a function reads an
    input, its weights have their observers already, and the input is quantized like any other value.
    """
    modules: Modules = dict(prepared.named_modules(remove_duplicate=False))
    for node in prepared.graph.nodes:
        observer = modules.get(str(node.target)) if node.op == "call_module" else None
        if not isinstance(observer, ActivationObserver) or not _is_input(node.args[0], modules):
            continue
        readers = _readers(node, modules)
        if any(user.op == "call_function" and _multiplies(user, modules) for user in readers):
            continue
        prepared.set_submodule(str(node.target), ByteObserver(byte_scale))
        for user in readers:
            if _multiplies(user, modules):
                reader: Any = modules[str(user.target)]
                reader.qconfig = QConfig(activation=reader.qconfig.activation, weight=weight)


def share_scales(prepared: torch.fx.GraphModule) -> None:
    """Do not quantize anew what only moves values that are quantized: bytes move as well.

    What does not even move them is left out, so that a sum sees what it adds.
    """
    modules: Modules = dict(prepared.named_modules(remove_duplicate=False))
    for node in list(prepared.graph.nodes):
        if node.op == "call_module" and isinstance(modules[str(node.target)], _IDENTITIES):
            _leave_out(node)
    for node in list(prepared.graph.nodes):
        if not isinstance(modules.get(str(node.target)), ActivationObserver):
            continue
        source = _source(node.args[0], modules)
        if isinstance(modules.get(str(source.target)), ActivationObserver):
            _leave_out(node)
    prepared.recompile()


def _source(node: torch.fx.Node, modules: Modules) -> Any:
    """Follow a value back to where it was made, of whose values it has no others."""
    while node.args and isinstance(node.args[0], torch.fx.Node) and _moves(node, modules):
        node = node.args[0]
    return node


def _is_input(node: torch.fx.Node, modules: Modules) -> bool:
    """Say whether all values of a node's result are inputs' values."""
    source = _source(node, modules)
    if source.target in JOINS or isinstance(modules.get(str(source.target)), ActivationObserver):
        return all(_is_input(part, modules) for part in source.all_input_nodes)
    return bool(source.op == "placeholder")


def _moves(node: torch.fx.Node, modules: Modules) -> bool:
    return moves_values(node, modules) or zero_padding(node, modules) is not None


def _readers(node: torch.fx.Node, modules: Modules) -> list[torch.fx.Node]:
    """List what reads a value, or one that only moves its values."""
    readers: list[torch.fx.Node] = []
    for user in node.users:
        readers += _readers(user, modules) if _moves(user, modules) else [user]
    return readers


def read_overwritten(prepared: torch.fx.GraphModule) -> None:
    """Let what reads a tensor after it was changed in place read the result of that: quantized values do not change."""
    modules: Modules = dict(prepared.named_modules(remove_duplicate=False))
    for node in list(prepared.graph.nodes):
        if not _is_in_place(node, modules):
            continue
        observed = [user for user in node.users if isinstance(modules.get(str(user.target)), ActivationObserver)]
        (result, *_) = (*observed, node)
        source = node.args[0]
        is_observed = isinstance(modules.get(str(source.target)), ActivationObserver)
        for former in (source, source.args[0]) if is_observed else (source,):
            for user in [user for user in former.users if node < user]:
                user.replace_input_with(former, result)
    prepared.recompile()


def _is_in_place(node: torch.fx.Node, modules: Modules) -> bool:
    if node.op == "call_module":
        return bool(getattr(modules[str(node.target)], "inplace", False))
    name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
    is_call = node.op in {"call_function", "call_method"}
    return is_call and (bool(node.kwargs.get("inplace")) or (name.endswith("_") and not name.endswith("__")))


def leave_outputs_float(prepared: torch.fx.GraphModule) -> None:
    """Do not quantize what leaves the graph straight from a layer: its kernel writes float32 as well."""
    modules: Modules = dict(prepared.named_modules(remove_duplicate=False))
    (output,) = (node for node in prepared.graph.nodes if node.op == "output")
    for node in output.all_input_nodes:
        is_observer = node.op == "call_module" and isinstance(modules[str(node.target)], ActivationObserver)
        if is_observer and len(node.users) == 1 and _multiplies(node.args[0], modules):
            _leave_out(node)
    prepared.recompile()


def leave_summands_float(prepared: torch.fx.GraphModule, example_inputs: tuple[torch.Tensor, ...]) -> None:
    """Do not quantize a convolution's result that only goes into a sum with an earlier value of its shape.

    The convolution's kernel adds before it quantizes.
    """
    modules: Modules = dict(prepared.named_modules(remove_duplicate=False))
    shape = shapes(prepared, example_inputs)
    for total in list(prepared.graph.nodes):
        if total.target not in _SUMS or total.kwargs or len(total.all_input_nodes) != len(total.args):
            continue
        earlier, later = sorted(total.all_input_nodes)
        ends = (_source(earlier, modules), later)
        observed = all(isinstance(modules.get(str(node.target)), ActivationObserver) for node in ends)
        if not observed or len(later.users) > 1 or shape[earlier] != shape[later]:
            continue
        layer = modules.get(str(later.args[0].target))
        if type(layer) is torch.nn.Conv2d and len(later.args[0].users) == 1:
            _leave_out(later)
    prepared.recompile()


def _leave_out(node: torch.fx.Node) -> None:
    node.replace_all_uses_with(node.all_input_nodes[0])
    node.graph.erase_node(node)


def shapes(prepared: torch.fx.GraphModule, example_inputs: tuple[torch.Tensor, ...]) -> dict[torch.fx.Node, Any]:
    """Give the shape of what each node gives, by running a copy, so that nothing is observed."""
    found: dict[torch.fx.Node, Any] = {}
    nodes = list(prepared.graph.nodes)

    class Shapes(torch.fx.Interpreter):
        def run_node(self, n: torch.fx.Node) -> Any:
            result = super().run_node(n)
            found[nodes[len(found)]] = getattr(result, "shape", None)
            return result

    with torch.no_grad():
        Shapes(copy.deepcopy(prepared)).run(*(value.clone() for value in example_inputs))
    return found


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
    return node.op == "call_module" and is_multiplication(modules.get(str(node.target)))


def is_multiplication(module: torch.nn.Module | None) -> bool:
    """Say whether a module is a layer of weights, an activation function perhaps behind it."""
    first = module[0] if isinstance(module, torch.nn.Sequential) and len(module) else module
    return isinstance(first, _MATMUL_MODULES)
