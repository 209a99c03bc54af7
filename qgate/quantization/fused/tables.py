"""256-entry byte tables: functions of one value, from bytes to bytes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Callable

    Function = Callable[[torch.Tensor], torch.Tensor]

__all__ = ["Scale", "Squash", "activation_table", "byte_table", "squashed_table"]

_LEVELS = 255
_FINE = 64  # grid points a byte, to see how much a function varies within one
_BENT = 3.0  # hardswish is a parabola from 0 to there, and straight beyond
_BENDS = (1.0, 0.7, 1.5, 0.5)  # shares of a range over which it is bent
_DOUBLINGS = 32  # of the target's range, to see from where on a function does not vary


@dataclass(frozen=True)
class Scale:
    """How bytes stand for values: `(byte - zero_point) * step`."""

    step: float
    zero_point: int

    def is_close(self, other: Scale) -> bool:
        """Say whether both stand for the same values, but for the rounding of a float32."""
        return self.zero_point == other.zero_point and math.isclose(self.step, other.step, rel_tol=1e-6)

    def values(self, steps: torch.Tensor) -> torch.Tensor:
        """Give the values of bytes, float32, any shape."""
        return (steps.to(torch.float32) - self.zero_point) * self.step

    def bytes(self, values: torch.Tensor) -> torch.Tensor:
        """Give the bytes of values, as float32 whole numbers, any shape, rounded once as torch does."""
        steps = values.double() * torch.tensor(self.step).reciprocal() + self.zero_point
        return steps.float().round_().clamp_(0, _LEVELS)


@dataclass(frozen=True)
class Squash:
    """A cheap function that gives fewer bytes to low values: `hardswish(slope * x + offset)`, 0 for the lowest."""

    slope: float
    offset: float

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Apply it; below the range that matters it falls, but what is negative is written as 0."""
        return functional.hardswish(self.slope * x + self.offset)


_ALL_BYTES = torch.arange(_LEVELS + 1)


def byte_table(function: Function, source: Scale, target: Scale) -> torch.Tensor:
    """Tabulate an elementwise function of quantized values: uint8, shape (256,), exact."""
    return target.bytes(function(source.values(_ALL_BYTES))).to(torch.uint8)


def activation_table(function: Function, target: Scale) -> tuple[Scale, torch.Tensor] | None:
    """Give a scale for what goes into an activation, and the table that makes the activation of it.

    A layer's result is quantized with that scale, then looked up. Wherever the layer's real result lies, what the table
    gives is within one step of `target` of the activation quantized but once; where no scale achieves that (the
    function is steep against the step, over a wide range), None. The tails that do not vary, or vary by a step
    where that makes the range narrow enough, are one entry each, and it is their ends'.
    """
    grid = _active_range(function, target)
    if grid is None:
        return None
    wanted = target.bytes(function(grid))
    tables = (_fill(function, target, grid, wanted, tolerance) for tolerance in (0, 1))
    return next(filter(None, tables), None)


def squashed_table(function: Function, target: Scale) -> tuple[Squash, Scale, torch.Tensor] | None:
    """Give what `activation_table` gives, for a result that is squashed before it is quantized.

    SiLU has a long tail of low values in which it hardly varies; small outputs leave too few bytes for the rest. A
    hardswish costs an eighth of SiLU's own post-op.
    """
    grid = _active_range(function, target)
    if grid is None:
        return None
    wanted = target.bytes(function(grid))
    tables = (_fill_squashed(grid, wanted, tolerance, bend) for tolerance in (0, 1) for bend in _BENDS)
    return next(filter(None, tables), None)


def _fill_squashed(
    grid: torch.Tensor, wanted: torch.Tensor, tolerance: int, bend: float
) -> tuple[Squash, Scale, torch.Tensor] | None:
    """Fill a table for a squash that is bent over a share of the range; None as `_fill` gives it."""
    low, high = float(grid[_tail(wanted, tolerance)]), float(grid[~_tail(wanted.flip(0), tolerance)])
    if not low < high:
        return None
    slope = _BENT / (bend * (high - low))
    squash = Squash(slope, -slope * low)
    source = Scale(float(squash(torch.tensor(high))) / (_LEVELS - 1), 0)
    least, greatest = torch.full((_LEVELS + 1,), math.inf), torch.full((_LEVELS + 1,), -math.inf)
    for slack in (grid[0] - grid[1], grid[1] - grid[0]):
        _widen(least, greatest, source.bytes(squash(grid + slack)).long(), wanted)
    _widen(least, greatest, torch.tensor([0, _LEVELS]), wanted[[0, -1]])  # beyond the grid
    if not bool(((greatest - least >= 0) & (greatest - least <= 2)).all()):  # noqa: PLR2004  # one to either side
        return None
    return squash, source, ((least + greatest) / 2).round().to(torch.uint8)


def _widen(least: torch.Tensor, greatest: torch.Tensor, cells: torch.Tensor, wanted: torch.Tensor) -> None:
    """Take into entries' ranges what is wanted of them."""
    least.scatter_reduce_(0, cells, wanted, "amin")
    greatest.scatter_reduce_(0, cells, wanted, "amax")


def _active_range(function: Function, target: Scale) -> torch.Tensor | None:
    """Give a fine grid over the range outside which the quantized function does not vary; None without end."""
    bounds = target.step * _LEVELS * 2.0 ** torch.arange(_DOUBLINGS)
    values = torch.stack([function(-bounds), function(bounds)])
    if not bool(torch.isfinite(values).all()):
        return None
    quantized = target.bytes(values)
    varies = (quantized != quantized[:, -1:]).any(0).nonzero().flatten()
    outermost = int(varies[-1]) + 1 if len(varies) else 0
    if outermost > _DOUBLINGS - 2:
        return None
    bound = float(bounds[outermost])
    coarse = torch.linspace(-bound, bound, _LEVELS * _FINE)
    quantized = target.bytes(function(coarse))
    varies = (quantized[1:] != quantized[:-1]).nonzero().flatten()
    if not len(varies):
        return None
    return torch.linspace(float(coarse[varies[0]]), float(coarse[varies[-1] + 1]), _LEVELS * _FINE)


def _fill(
    function: Function, target: Scale, grid: torch.Tensor, wanted: torch.Tensor, tolerance: int
) -> tuple[Scale, torch.Tensor] | None:
    """Choose a scale and fill the table; None where an entry would have to serve values of more than two steps."""
    low, high = min(float(grid[_tail(wanted, tolerance)]), 0.0), float(grid[~_tail(wanted.flip(0), tolerance)])
    if not low < high:
        return None
    step = (high - low) / (_LEVELS - 2)  # both tails have an entry, and zero falls on a whole one
    source = Scale(step, min(max(math.ceil(0.5 - low / step), 0), _LEVELS))
    entries = target.bytes(function(source.values(_ALL_BYTES)))
    least, greatest = entries.clone(), entries.clone()
    for slack in (grid[0] - grid[1], grid[1] - grid[0]):  # at the edge of two entries a rounding decides which it is
        _widen(least, greatest, source.bytes(grid + slack).long(), wanted)
    if bool((greatest - least > 2).any()):  # noqa: PLR2004  # one to either side
        return None
    entries[0], entries[-1] = wanted[0], wanted[-1]
    return source, torch.minimum(torch.maximum(entries, greatest - 1), least + 1).to(torch.uint8)


def _tail(wanted: torch.Tensor, tolerance: int) -> int:
    """Give the index up to which `wanted` stays within `tolerance` of its first value."""
    return int(((wanted - wanted[0]).abs().cummax(0).values <= tolerance).sum()) - 1
