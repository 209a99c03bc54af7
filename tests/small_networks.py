"""Small networks, one for each way in which convolutions and matrices are put together, and their way to int8."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from qgate.quantization.backends import FbgemmBackend, OnednnBackend, X86Backend
from qgate.quantization.observers import MinMaxObserver, PerChannelMinMaxObserver
from qgate.quantization.prepare import Recipe, convert, prepare

if TYPE_CHECKING:
    from collections.abc import Callable

BACKENDS = {"fbgemm": FbgemmBackend, "x86": X86Backend, "onednn": OnednnBackend}


def conv_bn_silu(inputs: int, outputs: int, **options: Any) -> nn.Sequential:
    norm = nn.BatchNorm2d(outputs)
    nn.init.uniform_(norm.running_var, 0.5, 2.0)
    nn.init.normal_(norm.running_mean)
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1, bias=False, **options), norm, nn.SiLU())


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.block = conv_bn_silu(3, 8), conv_bn_silu(8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        return x + self.block(x)


class Concatenated(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.left, self.right, self.head = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(8, 4, 1)

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        joined = torch.cat([self.left(x), self.right(x)], 1)
        return [self.head(joined), nn.functional.max_pool2d(joined, 2)]


class FunctionalConvolution(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(6, 3, 3, 3) / 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.conv2d(x, self.weight).relu()


class Fork(nn.Module):
    """FX cannot trace it: which way it goes depends on the data."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.shape[0] == 1 and bool(x.sum() > 1e9):
            return x - 1
        return x * 2


class CalledTwice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.again, self.head = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        return self.head(self.again(torch.relu(self.again(x))))


class Viewed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, 4, 3), nn.Linear(4 * 36, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        return self.head(x.view(x.shape[0], -1))


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


NETWORKS = {
    "conv_bn_silu": Network(lambda: nn.Sequential(conv_bn_silu(3, 8), conv_bn_silu(8, 8))),
    "residual": Network(Residual),
    "concatenated": Network(Concatenated),
    "functional": Network(FunctionalConvolution),
    "linear": Network(lambda: nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 4)), (32, 16)),
    "depthwise": Network(lambda: nn.Sequential(conv_bn_silu(3, 8), conv_bn_silu(8, 8, groups=8))),
    "grouped": Network(lambda: nn.Sequential(conv_bn_silu(3, 8), conv_bn_silu(8, 8, groups=2))),
    "transposed": Network(lambda: nn.Sequential(nn.Conv2d(3, 4, 1), nn.ConvTranspose2d(4, 3, 2, stride=2))),
    "kept_whole": Network(lambda: nn.Sequential(nn.Conv2d(3, 4, 3), Fork(), nn.Conv2d(4, 2, 1)), (1, 3, 8, 8), ("1",)),
    "called_twice": Network(CalledTwice),
    "viewed": Network(Viewed),
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
        for seed in range(1, 9):
            observed(*network.inputs(seed))
    return convert(observed, backend.backend_config())


def flat(output: Any) -> torch.Tensor:
    """Lay all tensors of an output end to end."""
    return output.flatten() if isinstance(output, torch.Tensor) else torch.cat([flat(part) for part in output])
