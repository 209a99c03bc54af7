"""How long the arms take: interleaved rounds in one process, so that what slows one slows all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from qgate.engine.speedup import LOOKS, MIN_ROUNDS, Estimate, Goal, estimate
from qgate.engine.stopwatch import Pass, Stopwatch
from qgate.errors import QuantizationError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from qgate.config.model import TimingConfig
    from qgate.engine.progress import Progress

__all__ = ["Goal", "Timing", "measure"]

CANDIDATE = "int8"
_SURVEY_RUNS = 7  # undisturbed ones of each form tell which float32 form is fastest
_SURVEY_SHARE = 0.25  # of the time at most: on a busy machine, the rest is for what is judged
_BUSY_ROUNDS = LOOKS[2]  # where fewer than MIN_ROUNDS of so many were undisturbed, the machine is a busy one
# Caches and memory are shared with those who keep the cores busy, and float32 needs more of both: by how much the ratio
# of time on the core may differ from the ratio on a quiet machine; `benchmarks/contention.py` measures it.
_CONTENTION = 0.10


@dataclass(frozen=True)
class Rounds:
    """What rounds of two forms have said so far: seconds as `estimate` takes them, and what was made of them.

    `on_core` says that they are seconds on the core, of all rounds; else they are wall time, of undisturbed ones.
    """

    seconds: NDArray[np.float64]
    preempted: int
    on_core: bool = False
    estimate: Estimate | None = None

    @property
    def of_baseline(self) -> NDArray[np.float64]:
        """Give the seconds of each pass of the baseline."""
        return self.seconds[:, [0, 3]].ravel()

    @property
    def of_candidate(self) -> NDArray[np.float64]:
        """Give the seconds of each pass of int8."""
        return self.seconds[:, [1, 2]].ravel()


@dataclass(frozen=True)
class Timing:
    """The `speedup` figures of `results.json`, and the seconds that they rest on: of each pass, float64, (passes,)."""

    figures: dict[str, object]
    baseline: NDArray[np.float64]
    candidate: NDArray[np.float64]


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

    def run_round(self, order: Sequence[str]) -> list[Pass]:
        """Run forms one after the other."""
        passes = [self.stopwatch.run(self.forms[form], self.example_inputs) for form in order]
        self.progress.advance()
        return passes


def measure(
    forms: Mapping[str, torch.nn.Module],
    example_inputs: tuple[torch.Tensor, ...],
    config: TimingConfig,
    goal: Goal,
    progress: Progress,
) -> Timing:
    """Time forms, all in seconds; the form `int8` is the candidate.

    First all forms run a few times; that tells the baseline. Then fresh rounds compare it with int8, so that the choice
    does not flatter what it is compared with: until the interval of their ratio reaches the goal, or `max_seconds`
    have passed. `interval` is None where there were too few rounds; `unsettled_because` says that, and that the machine
    was too busy for undisturbed ones. Torch's thread count is the caller's to set.

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
    figures = _figures(baseline, medians, rounds, config.max_seconds)
    return Timing(figures, rounds.of_baseline, rounds.of_candidate)


def _possible_baselines(forms: Mapping[str, torch.nn.Module], baseline_form: str) -> list[str]:
    floats = [form for form in forms if form != CANDIDATE]
    if baseline_form not in {"fastest", *floats}:
        raise QuantizationError(f'the model has no form "{baseline_form}" to compare with, only {", ".join(floats)}')
    return floats if baseline_form == "fastest" else [baseline_form]


def _survey(bench: Bench, until: float) -> dict[str, float]:
    """Give the median seconds of each form."""
    passes: dict[str, list[Pass]] = {form: [] for form in bench.forms}
    order = list(bench.forms)
    while min(sum(run.is_undisturbed for run in runs) for runs in passes.values()) < _SURVEY_RUNS:
        for form, run in zip(order, bench.run_round(order), strict=True):
            passes[form].append(run)
        order.reverse()
        if bench.stopwatch.now() >= until:
            break
    return {form: _median(runs, one_thread=bench.stopwatch.one_thread) for form, runs in passes.items()}


def _median(runs: list[Pass], *, one_thread: bool) -> float:
    """Give the median seconds of undisturbed runs; where there are none, the time on the core, if that is known."""
    undisturbed = [run.seconds for run in runs if run.is_undisturbed]
    return float(np.median(undisturbed or [run.on_core if one_thread else run.seconds for run in runs]))


def _compare(bench: Bench, baseline: str, goal: Goal) -> Rounds:
    """Run rounds of two forms until a look at them reaches the goal, the last look is over, or time is up."""
    rounds: list[list[Pass]] = []
    while len(rounds) < LOOKS[-1] and not bench.is_time_up:
        rounds.append(_abba(bench, baseline, candidate_first=bool(len(rounds) % 2)))
        if len(rounds) in LOOKS:
            found = _look(rounds, goal, one_thread=bench.stopwatch.one_thread)
            if found.estimate and goal.is_reached(found.estimate.interval):
                return found
    return _look(rounds, goal, one_thread=bench.stopwatch.one_thread)


def _abba(bench: Bench, baseline: str, *, candidate_first: bool) -> list[Pass]:
    """Run one round: both forms, and both again in reverse, so that a steady drift cancels.

    The half in which the baseline ran first comes first in what is given.
    """
    order = [baseline, CANDIDATE, CANDIDATE, baseline]
    if not candidate_first:
        return bench.run_round(order)
    passes = bench.run_round(order[2:] + order[:2])
    return passes[2:] + passes[:2]


def _look(rounds: list[list[Pass]], goal: Goal, *, one_thread: bool) -> Rounds:
    """Estimate the speedup from undisturbed rounds; on a busy machine, which leaves too few, from time on the core."""
    kept = [[run.seconds for run in passes] for passes in rounds if all(run.is_undisturbed for run in passes)]
    seconds, preempted = np.array(kept).reshape(-1, 4), len(rounds) - len(kept)
    if len(kept) >= MIN_ROUNDS:
        return Rounds(seconds, preempted, estimate=estimate(seconds, goal))
    if one_thread and len(rounds) >= _BUSY_ROUNDS:
        seconds = np.array([[run.on_core for run in passes] for passes in rounds])
        return Rounds(seconds, preempted, on_core=True, estimate=estimate(seconds, goal, _CONTENTION))
    return Rounds(seconds, preempted)


def _figures(baseline: str, medians: dict[str, float], rounds: Rounds, max_seconds: float) -> dict[str, object]:
    found, seconds = rounds.estimate, rounds.seconds
    if found is None:
        of_baseline, of_candidate = medians[baseline], medians[CANDIDATE]
    else:
        of_baseline, of_candidate = (float(np.median(each)) for each in (rounds.of_baseline, rounds.of_candidate))
    figures: dict[str, object] = {
        "baseline": of_baseline,
        "candidate": of_candidate,
        "value": found.value if found else of_baseline / of_candidate,
        "interval": found and found.interval,
        "baseline_form": baseline,
        "forms": medians,
        "rounds": len(seconds),
        "preempted_rounds": rounds.preempted,
        "clock": "core" if rounds.on_core else "wall",
        "control": found and {"value": found.control, "interval": found.control_interval},
        "noise_floor": found and found.noise_floor,
    }
    reason = _why_unsure(rounds, max_seconds)
    return {**figures, "unsettled_because": reason} if reason else figures


def _why_unsure(rounds: Rounds, max_seconds: float) -> str:
    if rounds.on_core:
        undisturbed = len(rounds.seconds) - rounds.preempted
        return (
            f"other processes had the cores: only {undisturbed} of {len(rounds.seconds)} rounds were undisturbed, and "
            f"time on the core, compared instead, allows for {_CONTENTION:.0%}"
        )
    if rounds.estimate:
        return ""
    return (
        f"only {len(rounds.seconds)} of {len(rounds.seconds) + rounds.preempted} rounds were undisturbed in "
        f"max_seconds = {max_seconds:g}, {MIN_ROUNDS} are needed"
    )
