"""Small networks, one for each way in which convolutions and matrices are put together, and their way to int8."""

from __future__ import annotations

import torch
from torch import nn

from qgate.quantization.backends import FbgemmBackend, OnednnBackend, X86Backend
from qgate.testing.networks import NETWORKS as TINY
from qgate.testing.networks import Network, Residual, conv_bn_silu, flat, reference

__all__ = ["BACKENDS", "NETWORKS", "Network", "Residual", "conv_bn_silu", "flat", "reference"]

BACKENDS = {"fbgemm": FbgemmBackend, "x86": X86Backend, "onednn": OnednnBackend}


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


NETWORKS = {
    **TINY,
    "functional": Network(FunctionalConvolution),
    "depthwise": Network(lambda: nn.Sequential(conv_bn_silu(3, 8), conv_bn_silu(8, 8, groups=8))),
    "grouped": Network(lambda: nn.Sequential(conv_bn_silu(3, 8), conv_bn_silu(8, 8, groups=2))),
    "transposed": Network(lambda: nn.Sequential(nn.Conv2d(3, 4, 1), nn.ConvTranspose2d(4, 3, 2, stride=2))),
    "kept_whole": Network(lambda: nn.Sequential(nn.Conv2d(3, 4, 3), Fork(), nn.Conv2d(4, 2, 1)), (1, 3, 8, 8), ("1",)),
    "called_twice": Network(CalledTwice),
    "viewed": Network(Viewed),
}
