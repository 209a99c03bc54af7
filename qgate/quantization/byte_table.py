"""A function of one uint8 activation as a table of its 256 values, applied in place to tensors of any dense layout."""

from __future__ import annotations

import cv2
import torch

__all__ = ["apply_table", "kernel_name"]


def kernel_name() -> str:
    """Name the kernel that applies tables on this machine."""
    return "cv2.LUT"


def apply_table(values: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
    """Replace each element of `values` by `table[element]`, in place, on the calling thread, and give `values`.

    `values` is a dense uint8 CPU tensor of any shape and order of dimensions; `table` is contiguous uint8, (256,).
    ValueError where either is something else: a view with gaps or overlaps shares bytes that it must not change.
    """
    _check(values, table)
    count = values.numel()
    if count:
        # As one row: OpenCV shares rows out among its own threads, whose number is process-wide, and never splits one.
        row = values.as_strided((1, count), (count, 1)).numpy()
        cv2.LUT(row, table.numpy(), row)
    return values


def _check(values: torch.Tensor, table: torch.Tensor) -> None:
    if table.dtype is not torch.uint8 or table.shape != (256,) or not table.is_contiguous():
        raise ValueError(f"a byte table is contiguous uint8 of shape (256,), not {_described(table)}")
    if values.dtype is not torch.uint8 or not values.is_cpu or not _is_dense(values):
        raise ValueError(f"a byte table applies to dense uint8 CPU tensors, not to {_described(values)}")


def _is_dense(tensor: torch.Tensor) -> bool:
    """Tell whether the elements fill one stretch of memory, each once, in whatever order of dimensions."""
    return tensor.is_contiguous() or bool(torch.ops.aten.is_non_overlapping_and_dense.default(tensor))


def _described(tensor: torch.Tensor) -> str:
    return f"{tensor.dtype} of shape {tuple(tensor.shape)} and strides {tensor.stride()} on {tensor.device}"
