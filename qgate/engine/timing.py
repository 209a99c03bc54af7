"""How long the arms take: interleaved rounds in one process, so that what slows one slows all."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from qgate.errors import QuantizationError
from qgate.statistics import median_ratio_interval

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from qgate.config.model import BaselineForm, TimingConfig
    from qgate.engine.progress import Progress

__all__ = ["Timing", "compare", "measure"]

_MIN_ROUNDS = 15
_TARGET_HALF_WIDTH = 0.005  # of the ratio: finer than a speed limit is ever set
# A forward pass keeps one core busy; where the wall clock ran ahead of it by more, something else had the core.
_PREEMPTED = 1.1


@dataclass(frozen=True)
class Timing:
    """Seconds a forward pass took: for each form one value a round, shape (rounds,); rounds thrown away are counted."""

    seconds: dict[str, NDArray[np.float64]]
    preempted_rounds: int

    def median(self, form: str) -> float:
        """Give a form's median in seconds."""
        return float(np.median(self.seconds[form]))


def measure(
    forms: Mapping[str, torch.nn.Module],
    example_inputs: tuple[torch.Tensor, ...],
    config: TimingConfig,
    progress: Progress,
) -> Timing:
    """Time all forms side by side until the ratio to each is narrow or `max_seconds` have passed.

    The order is reversed from round to round (ABBA), so that a steady drift cancels.
    """
    deadline = time.perf_counter() + config.max_seconds
    rows: list[list[float]] = []
    preempted: list[list[float]] = []
    with torch.inference_mode():
        for _ in range(config.warmup_rounds):
            _round(forms, example_inputs)
        while not _settled(rows) and time.perf_counter() < deadline:
            row, undisturbed = _round(forms, example_inputs, backwards=bool((len(rows) + len(preempted)) % 2))
            (rows if undisturbed else preempted).append(row)
            progress.advance()
    # On a machine that never leaves the process alone, disturbed rounds are all there is; they are still paired.
    table = np.array(rows if len(rows) >= _MIN_ROUNDS or not preempted else rows + preempted)
    if not len(table):
        raise QuantizationError(f"not one timing round fitted into max_seconds = {config.max_seconds:g}; raise it")
    return Timing(dict(zip(forms, table.T, strict=True)), len(preempted))


def compare(timing: Timing, baseline: BaselineForm, confidence: float, seed: int) -> dict[str, object]:
    """Give the `speedup` figures of `results.json`, times in seconds; the form `int8` is the candidate.

    Raises `QuantizationError` where the model has no such baseline form.
    """
    floats = [form for form in timing.seconds if form != "int8"]
    if baseline not in {"fastest", *floats}:
        raise QuantizationError(f'the model has no form "{baseline}" to compare with, only {", ".join(floats)}')
    form = min(floats, key=timing.median) if baseline == "fastest" else baseline
    numerator, denominator = timing.seconds[form], timing.seconds["int8"]
    return {
        "baseline": timing.median(form),
        "candidate": timing.median("int8"),
        "value": float(np.median(numerator / denominator)),
        "interval": median_ratio_interval(numerator, denominator, confidence, seed),
        "baseline_form": form,
        "forms": {name: timing.median(name) for name in timing.seconds},
        "rounds": len(denominator),
        "preempted_rounds": timing.preempted_rounds,
    }


def _round(
    forms: Mapping[str, torch.nn.Module], example_inputs: tuple[torch.Tensor, ...], *, backwards: bool = False
) -> tuple[list[float], bool]:
    """Run every form once; give their seconds in the order of `forms`, and whether the process kept its core."""
    seconds: dict[str, float] = {}
    undisturbed = True
    for name in reversed(list(forms)) if backwards else forms:
        inputs = [value.clone() for value in example_inputs]  # a model may change them in place
        wall, cpu = time.perf_counter(), time.thread_time()
        forms[name](*inputs)
        seconds[name] = time.perf_counter() - wall
        undisturbed &= seconds[name] < _PREEMPTED * (time.thread_time() - cpu) + 1e-4
    return [seconds[name] for name in forms], undisturbed


def _settled(rows: list[list[float]]) -> bool:
    if len(rows) < _MIN_ROUNDS or len(rows) % _MIN_ROUNDS:
        return False
    table = np.array(rows)
    ratios = table[:, :-1] / table[:, -1:]
    # The standard error of a median is about 1.25 standard deviations over the root of the number of rounds.
    spread = 1.25 * np.subtract(*np.quantile(ratios, [0.84, 0.16], axis=0)) / 2 / np.sqrt(len(rows))
    return bool((2 * spread < _TARGET_HALF_WIDTH * np.median(ratios, axis=0)).all())
