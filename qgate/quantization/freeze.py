"""Freezing: the form without Python, its constants folded."""

from __future__ import annotations

import warnings
from typing import Any

import torch


def freeze(module: torch.nn.Module, example_inputs: tuple[torch.Tensor, ...]) -> torch.nn.Module:
    """Trace and freeze `module`; give it back as it was where its trace would not give the same outputs.

    The trace is compared on the example inputs and on copies of them, flipped and darker, so that a branch on data is
    noticed.
    """
    module = module.eval()
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            traced = torch.jit.trace(module, example_inputs, strict=False, check_trace=False)
            frozen: torch.nn.Module = torch.jit.freeze(traced.eval())
            agree = all(_agree(module(*inputs), frozen(*inputs)) for inputs in _trials(example_inputs))
    except Exception:  # noqa: BLE001  # whatever cannot be traced runs as it is: slower, never wrong
        return module
    return frozen if agree else module


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
