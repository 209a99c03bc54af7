"""Tiny networks, and their way to a reference graph."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from qgate.quantization.backends import FbgemmBackend
from qgate.quantization.observers import MinMaxObserver, PerChannelMinMaxObserver
from qgate.quantization.prepare import Recipe, convert, prepare

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["LAYERS", "NETWORKS", "Concatenated", "Network", "Residual", "conv_bn_silu", "flat", "reference"]

_CALIBRATION = range(1, 9)


def conv_bn_silu(inputs: int, outputs: int, **options: Any) -> nn.Sequential:
    """Make a convolution, a batch norm that says something, and SiLU."""
    norm: Any = nn.BatchNorm2d(outputs)
    nn.init.uniform_(norm.running_var, 0.5, 2.0)
    nn.init.normal_(norm.running_mean)
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1, bias=False, **options), norm, nn.SiLU())


class Residual(nn.Module):
    """A block whose input is added to its output."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.block = conv_bn_silu(3, 8), conv_bn_silu(8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (N, 3, H, W) to (N, 8, H, W)."""
        x = self.stem(x)
        return torch.add(x, self.block(x))


class Concatenated(nn.Module):
    """Two branches, and two outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right, self.head = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(8, 4, 1)

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        """Map (N, 3, H, W) to (N, 4, H, W) and (N, 8, H / 2, W / 2)."""
        joined = torch.cat([self.left(x), self.right(x)], 1)
        return [self.head(joined), nn.functional.max_pool2d(joined, 2)]


@dataclass(frozen=True)
class Network:
    """How to make a network, and what it takes."""

    make: Callable[[], nn.Module]
    shape: tuple[int, ...] = (1, 3, 8, 8)
    non_traceable: tuple[str, ...] = ()

    def module(self) -> nn.Module:
        """Make it with the same weights each time."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return self.make().eval()

    def inputs(self, seed: int = 1) -> tuple[torch.Tensor, ...]:
        """Draw one input."""
        return (torch.randn(self.shape, generator=torch.Generator().manual_seed(seed)),)


# One layer each: between its input and its output nothing is rounded but once.
LAYERS = {
    "convolution": Network(lambda: nn.Conv2d(3, 8, 3, padding=1)),
    "convolution and ReLU": Network(lambda: nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), nn.ReLU())),
    "depthwise convolution": Network(lambda: nn.Conv2d(4, 8, 3, groups=4), (1, 4, 8, 8)),
    "linear layer": Network(lambda: nn.Linear(16, 8), (4, 16)),
}
NETWORKS = {
    "conv_bn_silu": Network(lambda: nn.Sequential(conv_bn_silu(3, 8), conv_bn_silu(8, 8))),
    "residual": Network(Residual),
    "concatenated": Network(Concatenated),
    "linear": Network(lambda: nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 4)), (32, 16)),
}


def reference(network: Network, backend: Any = None, **recipe: Any) -> torch.fx.GraphModule:
    """Give a network's reference graph, calibrated on a few inputs; by default for fbgemm with min-max observers."""
    backend = backend or FbgemmBackend()
    settings = {
        "activation": MinMaxObserver,
        "weight": PerChannelMinMaxObserver,
        "reduce_range": backend.needs_reduced_range(),
        "non_traceable": network.non_traceable,
    }
    observed = prepare(network.module(), Recipe(**settings | recipe), backend.backend_config(), network.inputs())
    with torch.no_grad():
        for seed in _CALIBRATION:
            observed(*network.inputs(seed))
    return convert(observed, backend.backend_config())


def flat(output: Any) -> torch.Tensor:
    """Lay all tensors of an output end to end."""
    if isinstance(output, torch.Tensor):
        return output.flatten()
    parts = output.values() if isinstance(output, dict) else output
    return torch.cat([flat(part) for part in parts])
