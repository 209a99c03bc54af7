"""The first convolution: its few channels fill no register, those of 2x2 squares of them do."""

from __future__ import annotations

import copy
import time
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.ao.nn.quantized import reference

from qgate.quantization.float_forms import channels_last
from qgate.quantization.fused.kernels import QuantizedLayer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from qgate.quantization.fused.kernels import Epilogue
    from qgate.quantization.fused.tables import Scale

__all__ = ["Stem", "can_fold", "squared", "squares"]

_FEW = 4  # channels
_TRIALS = 5


def can_fold(layer: Any) -> bool:
    """Say whether a convolution is one of half the size over squares of 2x2 of its places."""
    return (
        type(layer) is reference.Conv2d
        and layer.in_channels <= _FEW
        and layer.groups == 1
        and tuple(layer.stride) == (2, 2)
        and tuple(layer.dilation) == (1, 1)
        and all(size % 2 == 0 for size in (*layer.kernel_size, *layer.padding))
    )


class Stem(QuantizedLayer):
    """A layer that `can_fold`, run as it is or folded, whichever takes less time here, to the same bits."""

    def __init__(self, layer: Any, source: Scale, end: Epilogue, residual: Scale | None = None) -> None:
        super().__init__(layer, source, end, residual)
        self.folded = QuantizedLayer(_folded(layer), source, end)
        self.folds: bool | None = None

    def forward(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        """Run the faster kernel."""
        if residual is not None or x.shape[-1] % 2 or x.shape[-2] % 2:
            return super().forward(x, residual)
        if self.folds is None:
            self.folds = _seconds(self._run_folded, x) < _seconds(super().forward, x)
        return self._run_folded(x) if self.folds else super().forward(x)

    def _run_folded(self, x: Tensor) -> Tensor:
        return self.folded(squares(x))  # type: ignore[no-any-return]  # a module's result


def _folded(layer: Any) -> Any:
    """Give the layer over squares: weight (out, 4 * in, height / 2, width / 2), stride 1."""
    folded = copy.deepcopy(layer)
    outputs, _, rows, columns = layer.weight.shape
    squares = layer.weight.detach().reshape(outputs, -1, rows // 2, 2, columns // 2, 2)
    folded.weight = nn.Parameter(squares.permute(0, 3, 5, 1, 2, 4).reshape(outputs, -1, rows // 2, columns // 2))
    folded.stride, folded.padding = (1, 1), tuple(size // 2 for size in layer.padding)
    return folded


def squared(shape: Sequence[int]) -> list[int]:
    """Give the shape of `squares` of a tensor."""
    batch, channels, height, width = map(int, shape)
    return [batch, 4 * channels, height // 2, width // 2]


def squares(x: Tensor) -> Tensor:
    """Put the places of each 2x2 square, row by row, into channels: (N, C, H, W) becomes (N, 4 * C, H / 2, W / 2)."""
    target = torch.empty(squared(x.shape), dtype=torch.uint8, memory_format=torch.channels_last)
    return torch.ops.qgate.squares_(target, channels_last(x))  # type: ignore[no-any-return]  # an operator's result


def _seconds(run: Any, x: Tensor) -> float:
    """Give the least of a few times of a pass on the core, the first of which packs weights."""
    times = []
    for _ in range(_TRIALS):
        begin = time.thread_time()
        run(x)
        times.append(time.thread_time() - begin)
    return min(times)
