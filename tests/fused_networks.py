"""Small networks lowered to fused kernels, each kernel held against the reference graph that it stands for."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from small_networks import Network, reference
from torch import fx, nn

from qgate.quantization.fused import FusedBackend

if TYPE_CHECKING:
    from collections.abc import Callable

SHAPE = (2, 3, 12, 14)


class Wired(nn.Module):
    """Modules by name, and a function of them and the inputs that says how they are connected."""

    def __init__(self, wiring: Callable[..., Any], **modules: nn.Module) -> None:
        super().__init__()
        for name, module in modules.items():
            setattr(self, name, module)
        self.wiring = wiring

    def forward(self, x: torch.Tensor) -> Any:
        return self.wiring(self, x)


def conv(inputs: int, outputs: int, kernel: int = 3, **options: Any) -> nn.Conv2d:
    """Make a convolution that keeps the size."""
    return nn.Conv2d(inputs, outputs, kernel, **{"padding": kernel // 2} | options)


def conv_bn(inputs: int, outputs: int, activation: nn.Module | None = None, **options: Any) -> nn.Sequential:
    """Make a convolution with a batch norm that says something, and perhaps an activation."""
    norm = nn.BatchNorm2d(outputs)
    nn.init.uniform_(norm.running_var, 0.5, 2.0)
    nn.init.normal_(norm.running_mean, std=0.2)
    return nn.Sequential(conv(inputs, outputs, bias=False, **options), norm, *([activation] if activation else []))


@dataclass
class Comparison:
    """What came of a lowering: kinds of nodes in order, the steps that each quantized value is off, and outputs."""

    kinds: list[str]
    steps: dict[str, torch.Tensor] = field(default_factory=dict)
    wanted: Any = None
    given: Any = None

    @property
    def share(self) -> float:
        """Give the share of bytes that differ."""
        steps = torch.cat([torch.zeros(1), *(steps.flatten() for steps in self.steps.values())])
        return float((steps != 0).float().mean())

    def output_error(self) -> float:
        """Give the root mean square of the outputs' difference, relative to the outputs' spread."""
        wanted, given = flat(self.wanted), flat(self.given)
        return float((given - wanted).square().mean().sqrt() / wanted.std())


def fused(network: Network, **recipe: Any) -> tuple[fx.GraphModule, fx.GraphModule]:
    """Give a network's reference graph, of the range that no CPU's kernels saturate at, and its fused form."""
    graph = reference(
        network, FusedBackend(), **{"float_outputs": True, "float_summands": True, "reduce_range": True} | recipe
    )
    graph.meta["byte_scale"] = recipe.get("byte_scale")
    return graph, FusedBackend().lower_graph(copy.deepcopy(graph))


def compare(network: Network, **recipe: Any) -> Comparison:
    """Lower a network; give each of its kernels the reference graph's own bytes, and compare what it makes of them."""
    graph, lowered = fused(network, **recipe)
    result = Comparison(kinds(lowered))
    with torch.no_grad():
        recorder = _Recorder(copy.deepcopy(graph))
        result.wanted = recorder.run(*network.inputs(3))
        fed = _Fed(lowered, recorder.bytes)
        fed.run(*network.inputs(3))
        result.given = lowered(*network.inputs(3))
    result.steps = fed.steps
    return result


def flat(output: Any) -> torch.Tensor:
    """Lay all tensors of an output end to end, float64."""
    if isinstance(output, torch.Tensor):
        return output.flatten().double()
    return torch.cat([flat(part) for part in (output.values() if isinstance(output, dict) else output)])


def kinds(lowered: fx.GraphModule) -> list[str]:
    """Say what each node of a fused graph is: a kernel and what it does behind, or a function's name."""
    skipped = {"placeholder", "output", "get_attr"}
    return [
        _kind(lowered, node) for node in lowered.graph.nodes if node.op not in skipped and node.target is not getattr
    ]


def _kind(lowered: fx.GraphModule, node: fx.Node) -> str:
    if node.op != "call_module":
        return str(getattr(node.target, "__name__", node.target))
    module: Any = lowered.get_submodule(str(node.target))
    name = type(module).__name__
    if not hasattr(module, "end"):
        return name
    end, post_op = module.end, module.end.post_op[0]
    parts = ["sum"] * (len(node.args) > 1) + [post_op] * (post_op != "none")
    parts += ["table"] * (end.table is not None) + ["float"] * (end.scale is None)
    return "+".join(["layer", *parts])


class _Recorder(fx.Interpreter):
    """Runs the reference graph in float32 and keeps the bytes of what it quantizes, by the value's name."""

    def __init__(self, graph: fx.GraphModule) -> None:
        super().__init__(graph)
        self.bytes: dict[str, torch.Tensor] = {}

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        if n.target is torch.quantize_per_tensor:
            self.bytes[n.args[0].name] = result.int_repr()  # type: ignore[union-attr]  # a node
        return result


class _Fed(fx.Interpreter):
    """Runs a fused graph whose every kernel gets the reference's bytes, and counts the steps that it is off."""

    def __init__(self, lowered: fx.GraphModule, wanted: dict[str, torch.Tensor]) -> None:
        super().__init__(lowered)
        self.wanted = wanted
        self.steps: dict[str, torch.Tensor] = {}

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        wanted = self.wanted.get(str(n.meta.get("value")))
        if wanted is None:
            return result
        assert result.dtype is torch.uint8
        assert result.shape == wanted.shape
        self.steps[n.meta["value"]] = result.int() - wanted.int()
        last = torch.channels_last if wanted.ndim == 4 else torch.contiguous_format
        return wanted.clone(memory_format=last)


def assert_faithful(result: Comparison, *, share: float = 0.005) -> None:
    """Fail where a kernel is more than a step off, more than a share of all bytes is, or the outputs differ by more.

    Without a table a step comes only of a float32 that falls on the edge between two bytes.
    """
    most = {name: int(steps.abs().max()) for name, steps in result.steps.items() if steps.numel()}
    assert max(most.values(), default=0) <= 1, f"steps off: {most}"
    assert result.share <= share
    assert result.output_error() < (0.05 if result.share else 1e-5)
