"""How long the arms take: interleaved rounds in one process, so that what slows one slows all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from qgate.engine.speedup import LOOKS, MIN_ROUNDS, Estimate, Goal, estimate
from qgate.engine.stopwatch import Stopwatch
from qgate.errors import QuantizationError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from qgate.config.model import TimingConfig
    from qgate.engine.progress import Progress

__all__ = ["Goal", "measure"]

CANDIDATE = "int8"
_SURVEY_RUNS = 7  # undisturbed ones of each form tell which float32 form is fastest
_SURVEY_SHARE = 0.25  # of the time at most: on a busy machine, the rest is for what is judged


@dataclass(frozen=True)
class Rounds:
    """Rounds of two forms: seconds as `speedup.estimate` takes them, and how many were thrown away."""

    seconds: NDArray[np.float64]
    preempted: int
    estimate: Estimate | None


@dataclass(frozen=True)
class Bench:
    """The forms, what they run on, and until when."""

    forms: Mapping[str, torch.nn.Module]
    example_inputs: tuple[torch.Tensor, ...]
    stopwatch: Stopwatch
    deadline: float
    progress: Progress

    @property
    def is_time_up(self) -> bool:
        """Say whether the deadline has passed."""
        return self.stopwatch.now() >= self.deadline

    def run(self, form: str) -> tuple[float, bool]:
        """Run a form once; give its seconds, and whether it was undisturbed."""
        return self.stopwatch.run(self.forms[form], self.example_inputs)

    def run_round(self, order: Sequence[str]) -> list[float] | None:
        """Run forms one after the other and give their seconds; None as soon as one was disturbed."""
        seconds: list[float] = []
        for form in order:
            taken, undisturbed = self.run(form)
            if not undisturbed:
                return None
            seconds.append(taken)
        return seconds


def measure(
    forms: Mapping[str, torch.nn.Module],
    example_inputs: tuple[torch.Tensor, ...],
    config: TimingConfig,
    goal: Goal,
    progress: Progress,
) -> dict[str, object]:
    """Give the `speedup` figures of `results.json`, times in seconds; the form `int8` is the candidate.

    First all forms run a few times; that tells the baseline. Then fresh rounds compare it with int8, so that the choice
    does not flatter what it is compared with: until the interval of their ratio reaches the goal, or `max_seconds`
    have passed. `interval` is None where there were too few undisturbed rounds, and `unsettled_because` says so.
    Torch's thread count is the caller's to set.

    Raises `QuantizationError` where the model has no such baseline form.
    """
    baselines = _possible_baselines(forms, config.baseline_form)
    stopwatch = Stopwatch()
    begin = stopwatch.now()
    bench = Bench(forms, example_inputs, stopwatch, begin + config.max_seconds, progress)
    with torch.inference_mode():
        for _ in range(config.warmup_rounds):
            bench.run_round(list(forms))
        medians = _survey(bench, begin + _SURVEY_SHARE * config.max_seconds)
        baseline = min(baselines, key=medians.__getitem__)
        rounds = _compare(bench, baseline, goal)
    return _figures(baseline, medians, rounds, config.max_seconds)


def _possible_baselines(forms: Mapping[str, torch.nn.Module], baseline_form: str) -> list[str]:
    floats = [form for form in forms if form != CANDIDATE]
    if baseline_form not in {"fastest", *floats}:
        raise QuantizationError(f'the model has no form "{baseline_form}" to compare with, only {", ".join(floats)}')
    return floats if baseline_form == "fastest" else [baseline_form]


def _survey(bench: Bench, until: float) -> dict[str, float]:
    """Give the median seconds of each form: of its undisturbed runs, or of all where it has none in time."""
    runs: dict[str, list[tuple[float, bool]]] = {form: [] for form in bench.forms}
    backwards = False
    while min(len(_undisturbed(form_runs)) for form_runs in runs.values()) < _SURVEY_RUNS:
        for form in reversed(list(runs)) if backwards else runs:
            runs[form].append(bench.run(form))
        backwards = not backwards
        bench.progress.advance()
        if bench.stopwatch.now() >= until:
            break
    return {
        form: float(np.median(_undisturbed(form_runs) or [seconds for seconds, _ in form_runs]))
        for form, form_runs in runs.items()
    }


def _undisturbed(runs: list[tuple[float, bool]]) -> list[float]:
    return [seconds for seconds, undisturbed in runs if undisturbed]


def _compare(bench: Bench, baseline: str, goal: Goal) -> Rounds:
    """Run rounds of two forms until a look at them reaches the goal, the last look is over, or time is up."""
    kept: list[list[float]] = []
    preempted = 0
    found: Estimate | None = None
    while len(kept) < LOOKS[-1] and not bench.is_time_up:
        row = _abba(bench, baseline, candidate_first=bool(len(kept) % 2))
        preempted += row is None
        if row is None:
            continue
        kept.append(row)
        bench.progress.advance()
        if len(kept) in LOOKS:
            found = estimate(np.array(kept), goal)
            if goal.is_reached(found.interval):
                break
    if len(kept) >= MIN_ROUNDS and len(kept) not in LOOKS:
        found = estimate(np.array(kept), goal)
    return Rounds(np.array(kept).reshape(-1, 4), preempted, found)


def _abba(bench: Bench, baseline: str, *, candidate_first: bool) -> list[float] | None:
    """Run one round: both forms, and both again in reverse, so that a steady drift cancels.

    The half in which the baseline ran first comes first in what is given.
    """
    order = [baseline, CANDIDATE, CANDIDATE, baseline]
    row = bench.run_round(order[2:] + order[:2] if candidate_first else order)
    return row if row is None or not candidate_first else row[2:] + row[:2]


def _figures(baseline: str, medians: dict[str, float], rounds: Rounds, max_seconds: float) -> dict[str, object]:
    found, seconds = rounds.estimate, rounds.seconds
    if found is None:
        of_baseline, of_candidate = medians[baseline], medians[CANDIDATE]
    else:
        of_baseline, of_candidate = (float(np.median(seconds[:, columns])) for columns in ([0, 3], [1, 2]))
    figures: dict[str, object] = {
        "baseline": of_baseline,
        "candidate": of_candidate,
        "value": found.value if found else of_baseline / of_candidate,
        "interval": found and found.interval,
        "baseline_form": baseline,
        "forms": medians,
        "rounds": len(seconds),
        "preempted_rounds": rounds.preempted,
        "control": found and {"value": found.control, "interval": found.control_interval},
        "noise_floor": found and found.noise_floor,
    }
    return figures if found else {**figures, "unsettled_because": _too_few(rounds, max_seconds)}


def _too_few(rounds: Rounds, max_seconds: float) -> str:
    return (
        f"only {len(rounds.seconds)} rounds were undisturbed in max_seconds = {max_seconds:g}, {MIN_ROUNDS} are needed "
        f"({rounds.preempted} were thrown away, because other processes had the cores)"
    )
