"""A function of one uint8 activation as a table of its 256 values, alone or before a residual sum; both in place.

The kernels are native where `_byte_table.c` was built and its result is right on this CPU; else OpenCV and numpy give
the same bits. All run on the calling thread and release the interpreter: forward passes run side by side.
"""

from __future__ import annotations

import ctypes
import functools
from typing import TYPE_CHECKING, Any, NamedTuple

import cv2
import numpy as np
import torch

if TYPE_CHECKING:
    from typing import TypeAlias

    Bytes: TypeAlias = np.ndarray[Any, np.dtype[np.uint8]]

try:
    from qgate.quantization import _byte_table
except ImportError:  # installed without a compiler
    _KERNELS: list[str] = []
else:
    _KERNELS = _byte_table.kernels()

__all__ = [
    "MAX_PLANES",
    "SumQuantization",
    "add_table",
    "apply_table",
    "interleaved",
    "kernel_name",
    "quantize_planes",
    "register_native_operators",
]

MAX_PLANES = 4  # as in _byte_table.h
_NUM_ENTRIES = 256


class SumQuantization(NamedTuple):
    """Scales and zero points: of the table's entries, of the other summand, and of their sum."""

    table_scale: float
    table_zero_point: int
    other_scale: float
    other_zero_point: int
    scale: float
    zero_point: int


def kernel_name() -> str:
    """Name the kernel that applies tables on this machine: avx512_vbmi, avx2 or cv2.LUT."""
    return _kernel or "cv2.LUT"


def register_native_operators() -> bool:
    """Give the operators of `torch.ops.qgate` their native kernels; False where there are none."""
    torch_library = ctypes.CDLL(torch._C.__file__)  # finds what those that it is linked with have, too
    if not _kernel or not all(hasattr(torch_library, name) for name in _byte_table.torch_functions()):
        return False
    names = _byte_table.torch_functions()
    addresses = [ctypes.cast(getattr(torch_library, name), ctypes.c_void_p).value or 0 for name in names]
    _byte_table.register_operators(_kernel, addresses)
    return True


def apply_table(values: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
    """Replace each element of `values` by `table[element]`, in place, and give `values`.

    `values` is a dense uint8 CPU tensor of any shape and order of dimensions; `table` is contiguous uint8, (256,).
    ValueError where either is something else: a view with gaps or overlaps shares bytes that it must not change.
    """
    _check(values, table)
    if _kernel:
        address = values.data_ptr()
        _byte_table.map_rows(_kernel, address, address, values.numel(), 1, 0, 0, table.data_ptr())
    elif values.numel():
        row = _row(values)
        cv2.LUT(row, table.numpy(), row)
    return values


def add_table(
    values: torch.Tensor, other: torch.Tensor, table: torch.Tensor, quantization: SumQuantization
) -> torch.Tensor:
    """Replace each element of `values` by the quantized sum of `table[element]` and `other`'s, and give `values`.

    Exactly what dequantize, add and quantize_per_tensor of torch give, in float32 with one fused multiply-add, the
    last: clamp(round(fma(s_t * (table[value] - z_t) + s_o * (other - z_o), 1 / s, z)), 0, 255), halves to even.
    `values` and `table` are as in `apply_table`; `other` is uint8 of the same shape, and is copied where its order of
    dimensions differs. ValueError where any is something else.
    """
    _check(values, table)
    other = _aligned(other, values)
    if _kernel:
        _byte_table.add(_kernel, values.data_ptr(), other.data_ptr(), values.numel(), table.data_ptr(), *quantization)
    elif values.numel():
        row = _row(values)
        pairs = cv2.merge((row, _row(other))).view("<u2")[..., 0]
        _sums(table.numpy().tobytes(), quantization).take(pairs, out=row, mode="clip")
    return values


def quantize_planes(x: torch.Tensor, step: float, zero_point: int) -> torch.Tensor:
    """Quantize float32 (N, C, H, W) of at most MAX_PLANES channels to uint8 with channels last, exactly as torch does.

    It takes one pass, where torch takes four.
    """
    batch, channels, height, width = x.shape
    last = x.is_contiguous(memory_format=torch.channels_last)
    inverse = float(np.float32(1) / np.float32(step))
    if not _kernel and (last or zero_point):  # OpenCV clamps before it could add a zero point
        quantized = torch.quantize_per_tensor(x, step, zero_point, torch.quint8).int_repr()
        return quantized.contiguous(memory_format=torch.channels_last)
    if not _kernel:
        batches = x.detach().numpy()
        return interleaved(
            [[cv2.addWeighted(plane, inverse, plane, 0, 0, dtype=cv2.CV_8U) for plane in planes] for planes in batches]
        )
    result = torch.empty(x.shape, dtype=torch.uint8, memory_format=torch.channels_last)
    x = x if last else x.contiguous()
    shape = (channels * height * width, 1) if last else (height * width, channels)
    for number in range(batch):
        addresses = (result[number].data_ptr(), x[number].data_ptr())
        _byte_table.quantize(_kernel, *addresses, *shape, inverse, zero_point)
    return result


def interleaved(batch: Any) -> torch.Tensor:
    """Give planes of bytes, N of C of (H, W), as a tensor (N, C, H, W) with its few channels last."""
    merged = np.empty((len(batch), *batch[0][0].shape, len(batch[0])), np.uint8)
    for planes, pixels in zip(batch, merged, strict=True):
        cv2.merge(list(planes), pixels)
    return torch.from_numpy(merged).permute(0, 3, 1, 2)


def _row(values: torch.Tensor) -> Bytes:
    """View a dense tensor as one row: OpenCV splits only between rows, by a number of threads that is process-wide."""
    count = values.numel()
    row: Bytes = values.as_strided((1, count), (count, 1)).numpy()
    return row


@functools.lru_cache(maxsize=256)
def _sums(table: bytes, quantization: SumQuantization) -> Bytes:
    """Give the sum of `table[a]` and `b` at index a + 256 b."""
    table_scale, table_zero_point, other_scale, other_zero_point, scale, zero_point = quantization
    entries = torch.frombuffer(bytearray(table), dtype=torch.uint8).float()
    first = (entries - table_zero_point) * table_scale
    second = (torch.arange(_NUM_ENTRIES).float() - other_zero_point) * other_scale
    # A float64 product of float32 factors is exact, so this rounds as a fused multiply-add does.
    steps = (first + second[:, None]).double() * torch.tensor(scale, dtype=torch.float32).reciprocal() + zero_point
    sums: Bytes = steps.float().round().clamp(0, 255).to(torch.uint8).flatten().numpy()
    return sums


def _check(values: torch.Tensor, table: torch.Tensor) -> None:
    if table.dtype is not torch.uint8 or table.numel() != _NUM_ENTRIES or not table.is_contiguous():
        raise ValueError(f"a byte table is contiguous uint8 of shape (256,), not {_described(table)}")
    if values.dtype is not torch.uint8 or not values.is_cpu or not _is_dense(values):
        raise ValueError(f"a byte table applies to dense uint8 CPU tensors, not to {_described(values)}")


def _aligned(other: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    if other.dtype is not torch.uint8 or not other.is_cpu or other.shape != values.shape:
        raise ValueError(f"cannot add {_described(other)} to {_described(values)}")
    return other if other.stride() == values.stride() else torch.empty_like(values).copy_(other)


def _is_dense(tensor: torch.Tensor) -> bool:
    """Tell whether the elements fill one stretch of memory, each once, in whatever order of dimensions."""
    return (
        tensor.is_contiguous()
        or tensor.is_contiguous(memory_format=torch.channels_last)
        or bool(torch.ops.aten.is_non_overlapping_and_dense.default(tensor))
    )


def _described(tensor: torch.Tensor) -> str:
    return f"{tensor.dtype} of shape {tuple(tensor.shape)} and strides {tensor.stride()} on {tensor.device}"


def _is_right(kernel: str) -> bool:
    """Compare a kernel with the definition: on every pair, at lengths around its registers' widths, past its end."""
    table = np.random.default_rng(0).permutation(_NUM_ENTRIES).astype(np.uint8)
    quantization = SumQuantization(0.0437, 119, 0.0291, 37, 0.0531, 13)
    other, values = np.divmod(np.arange(_NUM_ENTRIES**2), _NUM_ENTRIES)
    other, values = other.astype(np.uint8), values.astype(np.uint8)
    wanted, wanted_sums = table[values], _sums(table.tobytes(), quantization)
    for start, stop in [(0, len(values)), *((start, start + length) for start in (1, 200) for length in range(130))]:
        mapped, summed = values[: stop + 64].copy(), values[: stop + 64].copy()
        at, length = table.ctypes.data, stop - start
        _byte_table.map_rows(kernel, mapped.ctypes.data + start, values.ctypes.data + start, length, 1, 0, 0, at)
        _byte_table.add(kernel, summed.ctypes.data + start, other.ctypes.data + start, length, at, *quantization)
        if not (_replaced(values, wanted, start, stop, mapped) and _replaced(values, wanted_sums, start, stop, summed)):
            return False
    lengths = range(1, 80)
    return all(_maps_rows(kernel, table, length) and _quantizes(kernel, length) for length in lengths)


def _quantizes(kernel: str, length: int) -> bool:
    """Tell whether planes of so many values are quantized, in turn, and no byte behind them is changed."""
    planes = np.linspace(-3, 700, 3 * length, dtype=np.float32).reshape(3, length)[:, ::-1].copy()
    target = np.full(3 * length + 64, 7, np.uint8)
    _byte_table.quantize(kernel, target.ctypes.data, planes.ctypes.data, length, 3, 0.5, 3)
    wanted = np.clip(np.rint(planes * np.float32(0.5) + 3), 0, 255).astype(np.uint8).T.reshape(-1)
    return np.array_equal(target[: len(wanted)], wanted) and bool((target[len(wanted) :] == 7).all())  # noqa: PLR2004  # as above


def _maps_rows(kernel: str, table: Bytes, length: int) -> bool:
    """Tell whether rows of `length` bytes go to every other such row, and no byte between them is changed."""
    source = np.arange(5 * length).astype(np.uint8).reshape(5, length)
    target = np.full((10, length), 7, np.uint8)
    _byte_table.map_rows(
        kernel, target.ctypes.data, source.ctypes.data, length, 5, 2 * length, length, table.ctypes.data
    )
    return np.array_equal(target[::2], table[source]) and bool((target[1::2] == 7).all())  # noqa: PLR2004  # as above


def _replaced(before: Bytes, wanted: Bytes, start: int, stop: int, after: Bytes) -> bool:
    """Tell whether `after` is `before` with the bytes from `start` to `stop` as wanted."""
    expected = np.concatenate([before[:start], wanted[start:stop], before[stop:]])
    return np.array_equal(after, expected[: len(after)])


_kernel = next(filter(_is_right, _KERNELS), None)
