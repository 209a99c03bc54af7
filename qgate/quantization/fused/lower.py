"""The lowering pass: a reference graph becomes a graph of kernels on plain uint8 tensors.

The reference graph says for every value where it is quantized. The pass walks it once, and carries for each value up to
two forms: `floats`, the node that gives it as the reference graph does, and `bytes`, a node that gives it as uint8
with its scale. A form that nothing reads is dead code in the end. What no fused kernel does is left as the reference
graph has it, between a quantized tensor and another, for torch's own lowering.
"""

from __future__ import annotations

import functools
import operator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import fx, nn
from torch.ao.nn.quantized.reference import Conv2d
from torch.fx.node import map_arg
from torch.nn import functional

from qgate.quantization.byte_operators import as_bytes, as_quantized
from qgate.quantization.fused.functions import elementwise, is_sum, pooling, post_op
from qgate.quantization.fused.kernels import (
    LAYERS,
    ByteAdd,
    ByteTable,
    Epilogue,
    FloatInput,
    MaxPool,
    PostOp,
    QuantizedLayer,
    QuantizeInput,
    epilogue,
    has_post_op,
)
from qgate.quantization.fused.stem import Stem, can_fold
from qgate.quantization.fused.tables import Scale, byte_table
from qgate.quantization.moves import JOINS, asks_shape, enlarges, moves_values, zero_padding

if TYPE_CHECKING:
    from qgate.quantization.fused.tables import Function

__all__ = ["call_directly", "lower_graph"]

Node = Any  # torch.fx types each argument of a node as a union of twenty types

_FRESH = (QuantizedLayer, ByteTable, ByteAdd, MaxPool)  # what they give is nobody else's
_KERNELS = (*_FRESH, QuantizeInput, FloatInput)


def lower_graph(reference: fx.GraphModule) -> fx.GraphModule:
    """Give the fused form of a reference graph; its nodes have the names of the values that they give, as bytes.

    A node that gives bytes has their scale as `meta["scale"]`, and the name of the reference graph's value as
    `meta["value"]`. Inputs may be uint8 tensors where the graph's `meta` says what they stand for, `byte_scale`.
    """
    return _Lowering(reference).run()


def call_directly(lowered: fx.GraphModule) -> fx.GraphModule:
    """Give a fused graph that calls kernels as functions: a module's call, by a long name, takes 15 microseconds."""
    graph = fx.Graph()
    copied: dict[Node, Node] = {}
    for node in lowered.graph.nodes:
        copied[node] = graph.node_copy(node, copied.__getitem__)
        kernel = lowered.get_submodule(node.target) if node.op == "call_module" else None
        if isinstance(kernel, _KERNELS):
            copied[node].op, copied[node].target = "call_function", kernel.forward
    return fx.GraphModule(lowered, graph, class_name="Fused").eval()


@dataclass(frozen=True)
class _Layer:
    """A layer of a reference graph, as FX fused it."""

    root: Any
    inner: tuple[nn.Module, ...] = ()

    @property
    def can_add(self) -> bool:
        """Say whether the kernel can add another value to the result before it does anything else to it."""
        return type(self.root) is Conv2d and not self.inner


@dataclass(frozen=True)
class _Behind:
    """The nodes between a layer and its quantization: first the sum with an earlier value, if there is one."""

    nodes: tuple[Node, ...]
    quantize: Node
    residual: Node | None

    @property
    def functions(self) -> tuple[Node, ...]:
        """Give the nodes that change single values."""
        return self.nodes if self.residual is None else self.nodes[1:]


class _Lowering:
    def __init__(self, reference: fx.GraphModule) -> None:
        self.reference = reference
        self.byte_scale: float | None = reference.meta.get("byte_scale")
        self.modules = dict(reference.named_modules(remove_duplicate=False))
        self.graph = fx.Graph()
        self.held: dict[str, Any] = {}
        self.floats: dict[Node, Node] = {}
        self.bytes: dict[Node, tuple[Node, Scale]] = {}
        self.placeholders: dict[Node, Node] = {}
        self.inputs: dict[tuple[Node, Scale], Node] = {}
        self.absorbed: set[Node] = set()

    def run(self) -> fx.GraphModule:
        """Walk the reference graph."""
        for node in self.reference.graph.nodes:
            if node.op == "output":
                self.graph.output(map_arg(node.args[0], self.floats.__getitem__))
            elif node not in self.absorbed:
                self._lower(node)
        lowered = fx.GraphModule(self.held, self.graph, class_name="Fused")
        self.graph.eliminate_dead_code()
        self._name_bytes()
        self._own_what_is_overwritten()
        lowered.delete_all_unused_submodules()
        lowered.recompile()
        return lowered.eval()

    def _lower(self, node: Node) -> None:
        if node.op == "placeholder":
            self._open(node)
        elif node.target is torch.quantize_per_tensor:
            self._quantize(node)
        elif node.op == "call_method" and node.target == "dequantize":
            self._copy(node)
            if node.args[0] in self.bytes:
                self.bytes[node] = self.bytes[node.args[0]]
        elif not self._lower_layer(node):
            self._copy(node)
            self._move(node)

    def _open(self, node: Node) -> None:
        """Give an input, for what reads it as float32 without the bytes that it may be."""
        self.placeholders[node] = self.floats[node] = self._moved(node, {})
        if self.byte_scale:
            self.floats[node] = self._call(node.name, FloatInput(self.byte_scale), self.placeholders[node])

    # Quantized values

    def _quantize(self, node: Node) -> None:
        """Give a quantized value as bytes and as a tensor of torch's quantized type."""
        scale = self._scale(node)
        found = self.bytes[node][0] if node in self.bytes else self._fused(node.args[0], scale)
        if found is None:
            quantized = self._copy(node)
            found = self.graph.call_function(as_bytes, (quantized,))
        else:
            arguments = (found, scale.step, scale.zero_point)
            self.floats[node] = self.graph.call_function(as_quantized, arguments)
        self._keep(node, found, scale)

    def _scale(self, node: Node) -> Scale:
        step, zero_point = (operator.attrgetter(str(part.target))(self.reference) for part in node.args[1:3])
        return Scale(float(step), int(zero_point))

    def _fused(self, value: Node, scale: Scale) -> Node | None:
        """Give a value, quantized with `scale`, without a float form of it; None where no kernel does that."""
        if value in self.bytes:
            return self._rescaled(value, scale)
        found = self._quantized_input(value, scale)
        if found is not None:
            return found
        if value.target is torch.cat and all(part in self.bytes for part in value.args[0]):
            parts = [self._rescaled(part, scale) for part in value.args[0]]
            return self.graph.call_function(torch.cat, (parts, *value.args[1:]), value.kwargs)
        return self._tabulated(value, scale) or self._sum(value, scale)

    def _quantized_input(self, value: Node, scale: Scale) -> Node | None:
        """Give an input, or what moves the values of one, quantized before it is moved."""
        if value.op == "placeholder":
            if (value, scale) not in self.inputs:
                kernel = QuantizeInput(scale, self.byte_scale)
                self.inputs[value, scale] = self._call(value.name, kernel, self.placeholders[value])
            return self.inputs[value, scale]
        padding = zero_padding(value, self.modules)
        if len(value.all_input_nodes) != 1 or not (padding or moves_values(value, self.modules)):
            return None
        found = self._quantized_input(value.all_input_nodes[0], scale)
        if found is None:
            return None
        return self._padded(found, padding, scale) if padding else self._moved(value, {value.all_input_nodes[0]: found})

    def _padded(self, found: Node, padding: tuple[int, ...], scale: Scale) -> Node:
        return self.graph.call_function(functional.pad, (found, padding, "constant", scale.zero_point))

    def _rescaled(self, value: Node, scale: Scale, function: Function = torch.Tensor.clone) -> Node:
        """Give a value that there is as bytes, or a function of it, in another scale."""
        found, source = self.bytes[value]
        if function is torch.Tensor.clone:
            if source == scale:
                return found
            if enlarges(value, self.modules) and value.args[0] in self.bytes:
                return self._moved(value, {value.args[0]: self._rescaled(value.args[0], scale)})
        return self._call(value.name, ByteTable(byte_table(function, source, scale)), found)

    def _tabulated(self, value: Node, scale: Scale) -> Node | None:
        """Give functions of single values, one after another, of what there is as bytes."""
        functions: list[Function] = []
        while value not in self.bytes:
            function = elementwise(value, self.modules)
            if function is None:
                return None
            functions.insert(0, function)
            (value,) = value.all_input_nodes
        return self._rescaled(value, scale, _composed(functions))

    def _sum(self, value: Node, scale: Scale) -> Node | None:
        """Add two values; a ReLU behind it is the lower end of the scale."""
        rectified = elementwise(value, self.modules) is not None and post_op(value, self.modules) == PostOp("relu")
        total = value.all_input_nodes[0] if rectified else value
        if not is_sum(total) or not all(part in self.bytes for part in total.args):
            return None
        # The left one is overwritten: that which was made last is least likely to be read again.
        (left, first), (right, second) = sorted((self.bytes[part] for part in total.args), key=_age, reverse=True)
        least = scale.zero_point if rectified else 0
        return self._call(value.name, ByteAdd(first, second, scale, least), left, right)

    # Layers

    def _lower_layer(self, node: Node) -> bool:
        layer = self._layer(node)
        if layer is None or node.args[0] not in self.bytes:
            return False
        behind = self._behind(node, layer)
        end = self._epilogue(layer, behind) if behind else None
        if behind is None or end is None:
            return self._float_layer(node, layer)
        found = self._call_layer(node, layer, end, behind.residual)
        self._keep(behind.quantize, found, self._scale(behind.quantize))
        self.absorbed.update(behind.nodes)
        return True

    def _layer(self, node: Node) -> _Layer | None:
        """Give the layer that a node calls, where there is a kernel for it."""
        module: Any = self.modules.get(str(node.target)) if node.op == "call_module" else None
        is_fused = isinstance(module, nn.Sequential) and len(module) > 0
        root = module[0] if is_fused else module
        if type(root) not in LAYERS or getattr(root, "padding_mode", "zeros") != "zeros" or _is_text(root, "padding"):
            return None
        return _Layer(root, tuple(module)[1:] if is_fused else ())

    def _behind(self, node: Node, layer: _Layer) -> _Behind | None:
        """Follow a result to its quantization; None where others read it before, or it is changed as a whole."""
        nodes: list[Node] = []
        residual = None
        while len(node.users) == 1:
            former, (node,) = node, node.users
            if node.target is torch.quantize_per_tensor:
                return _Behind(tuple(nodes), node, residual)
            summand = self._summand(node, former) if layer.can_add and not nodes else None
            if summand is None and elementwise(node, self.modules) is None:
                break
            residual = residual or summand
            nodes.append(node)
        return None

    def _summand(self, total: Node, result: Node) -> Node | None:
        """Give what is added to a result, where there is that as bytes before."""
        others = [part for part in total.args if part is not result] if is_sum(total) else []
        return others[0] if len(others) == 1 and others[0] in self.bytes else None

    def _epilogue(self, layer: _Layer, behind: _Behind) -> Epilogue | None:
        parts = (*layer.inner, *behind.functions)
        only = post_op(parts[0], self.modules) if len(parts) == 1 else None
        has = functools.partial(has_post_op, layer.root, has_residual=behind.residual is not None)
        functions = [elementwise(part, self.modules) for part in parts]
        return epilogue(_composed(functions) if functions else None, only, self._scale(behind.quantize), has)

    def _float_layer(self, node: Node, layer: _Layer) -> bool:
        """Give a layer's result as float32, where the kernel has what FX fused with it."""
        found = post_op(layer.inner[0], self.modules) if len(layer.inner) == 1 else None
        if layer.inner and not has_post_op(layer.root, found):
            return False
        self.floats[node] = self._call_layer(node, layer, Epilogue(None, found or PostOp()))
        return True

    def _call_layer(self, node: Node, layer: _Layer, end: Epilogue, residual: Node | None = None) -> Node:
        source, scale = self.bytes[node.args[0]]
        added, its_scale = self.bytes[residual] if residual is not None else (None, None)
        kernel = (Stem if can_fold(layer.root) else QuantizedLayer)(layer.root, scale, end, its_scale)
        return self._call(str(node.target), kernel, source, *([added] if added is not None else []))

    # Values that are moved, not changed

    def _move(self, node: Node) -> None:
        """Give a value as bytes where the node only moves those of others, which have one scale."""
        sources = [self.bytes[part] for part in node.all_input_nodes if part in self.bytes]
        if len({scale for _, scale in sources}) != 1:
            return
        (source, scale), *others = sources
        window, padding = pooling(node, self.modules), zero_padding(node, self.modules)
        if window:
            self._keep(node, self._call(node.name, MaxPool(*window), source), scale)
        elif padding:
            self._keep(node, self._padded(source, padding, scale), scale)
        elif moves_values(node, self.modules) and (node.target not in JOINS or len(others) + 1 == len(node.args[0])):
            found = {part: self.bytes[part][0] for part in node.all_input_nodes if part in self.bytes}
            self._keep(node, self._moved(node, found), scale)

    def _moved(self, node: Node, found: dict[Node, Node]) -> Node:
        """Repeat a node in the new graph, reading what was `found` for its inputs, floats for others."""
        self._hold(node)
        return self.graph.node_copy(node, lambda part: found[part] if part in found else self.floats[part])

    # The new graph

    def _keep(self, value: Node, found: Node, scale: Scale) -> None:
        found.meta["scale"] = scale
        if value.target is torch.quantize_per_tensor:
            found.meta["value"] = value.args[0].name
        self.bytes[value] = found, scale

    def _copy(self, node: Node) -> Node:
        """Repeat a node as it is; a shape is asked of bytes, so that no float form is made for that."""
        found = {part: self.bytes[part][0] for part in node.all_input_nodes if part in self.bytes}
        self.floats[node] = self._moved(node, self.placeholders | found if asks_shape(node) else {})
        return self.floats[node]

    def _hold(self, node: Node) -> None:
        if node.op in {"call_module", "get_attr"}:
            self.held[str(node.target)] = operator.attrgetter(str(node.target))(self.reference)

    def _call(self, name: str, kernel: nn.Module, *arguments: Node) -> Node:
        """Call a kernel, held under a name that says which module or value it stands for."""
        target, number = name, 1
        while target in self.held:
            target, number = f"{name}_{number}", number + 1
        self.held[target] = kernel
        return self.graph.create_node("call_module", target, arguments)

    def _name_bytes(self) -> None:
        """Name what gives a quantized value's bytes as the reference graph names the value."""
        taken = {node.name for node in self.graph.nodes}
        for value, (found, _) in self.bytes.items():
            if value.target is torch.quantize_per_tensor and found.name in taken and value.args[0].name not in taken:
                taken.remove(found.name)  # it may be the name of a later value
                found.name = value.args[0].name
                taken.add(found.name)

    def _own_what_is_overwritten(self) -> None:
        """Let kernels write into an input that nobody else has; copy it where one must and others do have it."""
        for node in list(self.graph.nodes):
            kernel = self._kernel(node)
            if isinstance(kernel, ByteTable):
                kernel.reuse = self._is_own(node.args[0], node)
            elif isinstance(kernel, ByteAdd):
                self._own(node, 0)
            elif isinstance(kernel, QuantizedLayer) and len(node.args) > 1:
                self._own(node, 1)

    def _own(self, node: Node, place: int) -> None:
        if not self._is_own(node.args[place], node):
            with self.graph.inserting_before(node):
                node.update_arg(place, self.graph.call_method("clone", (node.args[place],)))

    def _is_own(self, node: Node, reader: Node) -> bool:
        """Say whether a node's result has memory of its own, and `reader` is the last to read it, and reads it once."""
        if not (node.target is torch.cat or isinstance(self._kernel(node), _FRESH)):
            return False
        others = [user for user in node.users if user is not reader]
        is_last = all(user < reader and isinstance(self._kernel(user), _FRESH) for user in others)
        return is_last and reader.args.count(node) == 1

    def _kernel(self, node: Node) -> Any:
        return self.held[str(node.target)] if node.op == "call_module" else None


def _age(found: tuple[Node, Scale]) -> int:
    return list(found[0].graph.nodes).index(found[0])


def _is_text(layer: Any, name: str) -> bool:
    return isinstance(getattr(layer, name, None), str)


def _composed(functions: list[Any]) -> Function:
    def compose(x: torch.Tensor) -> torch.Tensor:
        for function in functions:
            x = function(x)
        return x

    return compose
