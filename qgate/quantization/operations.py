"""What each node of a lowered graph is, as it is seen to run: an int8 kernel, a conversion, a float operator."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import fx, nn
from torch.ao.nn import quantized as nnq
from torch.utils._pytree import tree_leaves

from qgate.quantization.byte_table import kernel_name
from qgate.quantization.fused.kernels import ByteAdd, ByteTable, MaxPool, QuantizedLayer, QuantizeInput
from qgate.quantization.onednn_log import onednn_log
from qgate.quantization.prepare import quiet_torch_ao

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["CALLS", "TABLE", "Kind", "Operation", "count_kernels", "operations", "table_of"]

CALLS = ("call_module", "call_function", "call_method")
TABLE = ":table"  # behind a node's name: the byte table that its module applies to what its kernel gives
Inputs = tuple[torch.Tensor, ...]
Kind = Literal["kernel", "table", "fallback", "conversion", "float", "other"]

_CONVERSIONS: set[Any] = {
    *(torch.quantize_per_tensor, torch.quantize_per_channel, torch._make_per_tensor_quantized_tensor),
    *("dequantize", torch.dequantize, "int_repr", torch.int_repr),
}
_CONVERTERS = (QuantizeInput, nnq.Quantize, nnq.DeQuantize)
_FUSED = (QuantizedLayer, ByteAdd, ByteTable, MaxPool, QuantizeInput)
_INT8 = {torch.uint8, torch.int8, torch.quint8, torch.qint8}


@dataclass(frozen=True)
class Operation:
    """What a node is.

    `what` is its module's class or its function. `kind` is `kernel` (int8 to int8, or to float32 at the end), `table`
    (a byte table), `fallback` (a kernel of torch's stock lowering in a graph of fused ones), `conversion`, `float`, or
    `other` for what moves no value: shapes, views. `kernel` names what ran: `onednn jit:avx2`, `fbgemm`, `torch`,
    `table avx512_vbmi`.
    """

    what: str
    kind: Kind
    kernel: str = ""


def operations(lowered: fx.GraphModule, inputs: Inputs, engine: str) -> dict[str, Operation]:
    """Run a lowered graph once and tell what each node was; a table within a node has an entry of its own.

    `engine` names the kernels of convolutions and linear layers that oneDNN does not say it ran.
    """
    # The first run packs weights, which oneDNN would tell of.
    with torch.inference_mode(mode=False), torch.no_grad(), quiet_torch_ao():
        lowered(*(value.clone() for value in inputs))
        with onednn_log() as log:
            watch = _Watch(lowered, log, engine)
            watch.run(*(value.clone() for value in inputs))
    return watch.found


def count_kernels(found: dict[str, Operation]) -> dict[str, int]:
    """Count the nodes by the kernel that ran; conversions, and float operators, are counted as such."""
    counted = Counter(map(_counted, found.values()))
    return {kernel: count for kernel, count in counted.most_common() if kernel}


def table_of(module: object) -> torch.Tensor | None:
    """Give the byte table that a module applies behind its kernel, where it does."""
    return module.end.table if isinstance(module, QuantizedLayer) else None


def _counted(operation: Operation) -> str:
    if operation.kind in ("conversion", "float"):
        return operation.kind
    return f"not fused: {operation.kernel}" if operation.kind == "fallback" else operation.kernel


class _Watch(fx.Interpreter):
    """Notes of each node what it is, from what goes in, what comes out, and what oneDNN says meanwhile."""

    def __init__(self, lowered: fx.GraphModule, log: Callable[[], list[str]], engine: str) -> None:
        super().__init__(lowered)
        self.log, self.engine = log, engine
        self.modules = dict(lowered.named_modules(remove_duplicate=False))
        self.is_fused = any(isinstance(module, _FUSED) for module in self.modules.values())
        self.found: dict[str, Operation] = {}

    def run_node(self, n: fx.Node) -> Any:
        """Run one node."""
        if n.op not in CALLS:
            return super().run_node(n)
        sources = _tensors(self.fetch_args_kwargs_from_env(n))
        versions = [source._version for source in sources]
        self.log()
        value = super().run_node(n)
        results = _tensors(value)
        unchanged = versions == [source._version for source in sources]
        is_view = unchanged and any(_share(result, source) for result in results for source in sources)
        module = self.modules.get(str(n.target)) if n.op == "call_module" else None
        kind = self._kind(n, module, [*sources, *results], is_view=is_view or not results)
        what = _what(n, module)
        self.found[n.name] = Operation(what, kind, self._kernel(kind, what))
        if table_of(module) is not None:
            self.found[n.name + TABLE] = Operation("byte table", "table", f"table {kernel_name()}")
        return value

    def _kind(self, node: fx.Node, module: nn.Module | None, values: list[torch.Tensor], *, is_view: bool) -> Kind:
        if node.target in _CONVERSIONS or isinstance(module, _CONVERTERS):
            return "conversion"
        if isinstance(module, _FUSED):
            return "table" if isinstance(module, ByteTable) else "kernel"
        if is_view:
            return "other"
        if any(value.dtype in _INT8 for value in values):
            return "fallback" if self.is_fused and any(value.is_quantized for value in values) else "kernel"
        return "float" if values[-1].is_floating_point() else "other"

    def _kernel(self, kind: Kind, what: str) -> str:
        """Name the kernel: the last that oneDNN ran, or the engine's."""
        said = self.log()
        if said:
            return f"onednn {said[-1]}"
        if kind == "table" or what == ByteAdd.__name__:
            return f"{'table' if kind == 'table' else 'sum'} {kernel_name()}"
        multiplies = any(part in what.lower() for part in ("conv", "linear"))
        return {"other": "", "kernel": self.engine if multiplies else "torch"}.get(kind, "torch")


def _what(node: fx.Node, module: nn.Module | None) -> str:
    if isinstance(module, QuantizedLayer):
        return "Linear" if not module.window else f"Conv{len(module.window[0])}d"
    if module is not None:
        return type(module).__name__
    is_operator = isinstance(node.target, torch._ops.OpOverload | torch._ops.OpOverloadPacket)
    return str(node.target) if is_operator else str(getattr(node.target, "__name__", node.target))


def _tensors(values: Any) -> list[torch.Tensor]:
    return [value for value in tree_leaves(values) if isinstance(value, torch.Tensor)]


def _share(left: torch.Tensor, right: torch.Tensor) -> bool:
    return left.untyped_storage().data_ptr() == right.untyped_storage().data_ptr()
