"""Time byte tables and sums behind them: qgate's kernels, what qgate does without them, and what torch and numpy offer.

Minima of the thread's own time, interleaved, on channels_last tensors of YOLOv5n's sizes with values like an
activation's. The last column is a single call on 64 bytes with cold caches: what Python costs.

    OMP_NUM_THREADS=1 python benchmarks/byte_table.py --json byte_table.json
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from qgate.files import write_atomically
from qgate.quantization import byte_table
from qgate.quantization.byte_table import SumQuantization, add_table, apply_table, kernel_name
from qgate.quantization.prepare import quiet_torch_ao

if TYPE_CHECKING:
    from collections.abc import Callable

    Run = Callable[[torch.Tensor, torch.Tensor], object]

SHAPES = {
    "64 B": (1, 16, 2, 2),
    "51 kB": (1, 128, 20, 20),
    "410 kB": (1, 16, 160, 160),
    "1.6 MB": (1, 16, 320, 320),
}
ROUNDS = 30
TABLE = torch.randperm(256, generator=torch.Generator().manual_seed(0)).to(torch.uint8)
BY = SumQuantization(0.0371, 7, 0.0522, 12, 0.0634, 9)


def main() -> None:
    """Print nanoseconds a byte of every way at every size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with quiet_torch_ao(), torch.inference_mode():
        results = {"table": timed(tables()), "table and sum": timed(sums())}
    for title, times in results.items():
        show(title, times)
    print(f"in use here: {kernel_name()}")
    if options.json:
        write_atomically(options.json, json.dumps({"kernel": kernel_name(), "seconds": results}).encode())


def tables() -> dict[str, Run]:
    """Give the ways to look every byte up."""
    entries, index = TABLE.numpy(), TABLE.clone()
    ways: dict[str, Run] = {
        f"qgate, {kernel or 'without compiler'}": with_kernel(kernel, lambda x, _: apply_table(x, TABLE))
        for kernel in (*byte_table._KERNELS, None)
    }
    ways["numpy.take"] = lambda x, _: entries.take(flat(x), mode="clip")
    ways["torch, indexing"] = lambda x, _: index[x.int()]
    return ways


def sums() -> dict[str, Run]:
    """Give the ways to look every byte up and add a second tensor."""
    first, second, total = (BY.table_scale, BY.table_zero_point), (BY.other_scale, BY.other_zero_point), BY[4:]
    wrap = torch._make_per_tensor_quantized_tensor
    ways: dict[str, Run] = {
        f"qgate, {kernel or 'without compiler'}": with_kernel(kernel, lambda x, y: add_table(x, y, TABLE, BY))
        for kernel in (*byte_table._KERNELS, None)
    }
    ways["table, onednn.qadd"] = lambda x, y: torch.ops.onednn.qadd.tensor(
        apply_table(x, TABLE), *first, y, *second, *total, torch.uint8
    )
    ways["table, quantized.add"] = lambda x, y: torch.ops.quantized.add(
        wrap(apply_table(x, TABLE), *first), wrap(y, *second), *total
    ).int_repr()
    return ways


def with_kernel(kernel: str | None, run: Run) -> Run:
    """Give `run` as it is where `kernel` is the one in use."""

    def switched(x: torch.Tensor, y: torch.Tensor) -> object:
        byte_table._kernel = kernel
        return run(x, y)

    return switched


def flat(values: torch.Tensor) -> np.ndarray:
    """View a dense tensor in the order of its memory."""
    return values.as_strided((values.numel(),), (1,)).numpy()


def activation(shape: tuple[int, ...], seed: int) -> torch.Tensor:
    """Give bytes that cluster as an activation's do."""
    values = np.random.default_rng(seed).normal(60, 25, shape).clip(0, 255)
    return torch.from_numpy(values.astype(np.uint8)).contiguous(memory_format=torch.channels_last)


def timed(ways: dict[str, Run]) -> dict[str, dict[str, float]]:
    """Give the least seconds of each way at each size; each run works on fresh values."""
    least = {name: dict.fromkeys(SHAPES, float("inf")) for name in ways}
    chosen = byte_table._kernel
    for size, shape in SHAPES.items():
        source, other = activation(shape, 0), activation(shape, 1)
        for _ in range(ROUNDS):
            for name, run in ways.items():
                values = source.clone()
                begin = time.thread_time()
                run(values, other)
                least[name][size] = min(least[name][size], time.thread_time() - begin)
    byte_table._kernel = chosen
    return least


def show(title: str, times: dict[str, dict[str, float]]) -> None:
    """Print nanoseconds a byte, and microseconds a call on hardly any."""
    large = list(SHAPES)[1:]
    table = Table(f"{title}: ns/byte", *large, "us a call", box=None)
    for name, by_size in times.items():
        cells = (1e9 * by_size[size] / np.prod(SHAPES[size]) for size in large)
        table.add_row(name, *(f"{cell:.3f}" for cell in cells), f"{1e6 * by_size['64 B']:.1f}")
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
