"""Freezing: the form without Python, its constants folded."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["agree", "freeze", "frozen"]


def freeze(module: torch.nn.Module, example_inputs: tuple[torch.Tensor, ...]) -> torch.nn.Module:
    """Trace and freeze `module`; give it back as it was where its trace would not give the same outputs.

    The trace is compared on the example inputs and on copies of them, flipped and darker, so that a branch on data is
    noticed.
    """
    module = module.eval()
    try:
        with torch.no_grad():
            traced = frozen(module, example_inputs)
            return traced if agree(module, traced, example_inputs) else module
    except Exception:  # noqa: BLE001  # whatever cannot be traced runs as it is: slower, never wrong
        return module


def frozen(
    module: torch.nn.Module, example_inputs: tuple[torch.Tensor, ...], *, bit_for_bit: bool = False
) -> torch.nn.Module:
    """Trace and freeze `module`, whatever comes of it; `bit_for_bit` forgoes what moves a rounding.

    Raises what tracing raises.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(module.eval(), example_inputs, strict=False, check_trace=False)
        return torch.jit.freeze(traced.eval(), optimize_numerics=not bit_for_bit)  # type: ignore[no-any-return]  # a module


def agree(run: Callable[..., Any], other: Callable[..., Any], example_inputs: tuple[torch.Tensor, ...]) -> bool:
    """Say whether two modules give the same on the example inputs and on what is made of them, but for roundings."""
    return all(_agree(run(*inputs), other(*inputs)) for inputs in _trials(example_inputs))


def _trials(example_inputs: tuple[torch.Tensor, ...]) -> list[tuple[torch.Tensor, ...]]:
    flipped = tuple(value.flip(-1) if value.ndim else value for value in example_inputs)
    darker = tuple((value / 4).to(value.dtype) for value in example_inputs)
    # The first runs of a frozen module profile and then optimise it: only the third is what users will run.
    return [example_inputs, flipped, darker, example_inputs]


def _agree(left: Any, right: Any) -> bool:
    if isinstance(left, torch.Tensor):
        # Folding constants may move a float rounding, and with it an int8 value by a step.
        return isinstance(right, torch.Tensor) and torch.allclose(left, right, rtol=1e-2, atol=1e-2 * _magnitude(left))
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(_agree(left[key], right[key]) for key in left)
    return len(left) == len(right) and all(_agree(*pair) for pair in zip(left, right, strict=True))


def _magnitude(value: torch.Tensor) -> float:
    return float(value.abs().max()) if value.numel() else 0.0
