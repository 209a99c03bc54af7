"""Time oneDNN's int8 convolutions with zero points, and with these in the bias, as the fused backend has them.

The second form pads beforehand where the convolution pads. Interleaved, one thread, the least time on the core.

    python benchmarks/zero_points.py
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

os.environ["OMP_NUM_THREADS"] = "1"

import torch
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Callable

ROUNDS = 30
# channels in and out, kernel, stride, side: of a small detector at 640 pixels
SHAPES = (
    (16, 32, 3, 2, 320),
    (16, 16, 3, 1, 160),
    (32, 64, 3, 2, 160),
    (32, 32, 3, 1, 80),
    (64, 128, 3, 2, 80),
    (64, 64, 3, 1, 40),
    (128, 256, 3, 2, 40),
    (128, 128, 3, 1, 20),
    (32, 16, 1, 1, 160),
    (64, 64, 1, 1, 80),
    (256, 256, 1, 1, 20),
)


def main() -> None:
    """Time each shape in both forms, print a table."""
    torch.set_num_threads(1)
    table = Table("convolution", "zero points, ms", "in the bias, ms", "ratio", box=None)
    for inputs, outputs, kernel, stride, side in SHAPES:
        x = torch.randint(0, 182, (1, inputs, side, side), dtype=torch.uint8)
        x = x.contiguous(memory_format=torch.channels_last)
        weight = torch.randint(-60, 61, (outputs, inputs, kernel, kernel), dtype=torch.int8)
        forms = (with_zero_points(x, weight, stride), without_zero_points(x, weight, stride))
        slow, fast = least_times(forms)
        name = f"{inputs} to {outputs}, {kernel}x{kernel}, stride {stride}, {side}x{side}"
        table.add_row(name, f"{1e3 * slow:.2f}", f"{1e3 * fast:.2f}", f"{slow / fast:.2f}")
    Console(width=100).print(table)


def with_zero_points(x: torch.Tensor, weight: torch.Tensor, stride: int) -> Callable[[], torch.Tensor]:
    """Convolve with a zero point before and behind."""
    return convolution(x, weight, stride, weight.shape[-1] // 2, (20, 100))


def without_zero_points(x: torch.Tensor, weight: torch.Tensor, stride: int) -> Callable[[], torch.Tensor]:
    """Pad, then convolve without zero points."""
    border = weight.shape[-1] // 2
    if not border:
        return convolution(x, weight, stride, 0, (0, 0))
    convolve = convolution(padded(x, border), weight, stride, 0, (0, 0))
    return lambda: (padded(x, border), convolve())[1]


def padded(x: torch.Tensor, border: int) -> torch.Tensor:
    """Add a border of the byte that stands for zero."""
    return torch.nn.functional.pad(x, (border,) * 4, value=20)


def convolution(
    x: torch.Tensor, weight: torch.Tensor, stride: int, padding: int, zero_points: tuple[int, int]
) -> Callable[[], torch.Tensor]:
    """Give a call of oneDNN's convolution, its weights packed."""
    before, behind = zero_points
    window = ([stride] * 2, [padding] * 2, [1, 1], 1)
    steps, zeros = torch.full((len(weight),), 0.01), torch.zeros(len(weight), dtype=torch.int32)
    bias = torch.randn(len(weight))
    packed = torch.ops.onednn.qconv_prepack(weight, steps, 0.02, before, *window, list(x.shape))
    written = (0.05, behind, torch.uint8, "none", [], "")
    call = torch.ops.onednn.qconv2d_pointwise.default
    return lambda: call(x, 0.02, before, packed, steps, zeros, bias, *window, *written)


def least_times(forms: tuple[Callable[[], torch.Tensor], ...]) -> list[float]:
    """Give the least seconds of each form, in rounds."""
    times: list[list[float]] = [[] for _ in forms]
    with torch.inference_mode():
        for _ in range(ROUNDS):
            for form, taken in zip(forms, times, strict=True):
                begin = time.thread_time()
                form()
                taken.append(time.thread_time() - begin)
    return [min(taken) for taken in times]


if __name__ == "__main__":
    main()
