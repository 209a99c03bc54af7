"""The search for a recipe: one question after another, each answered for the best recipe so far."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from qgate.config.model import FallbackConfig
from qgate.engine.reuse import Reuse
from qgate.engine.state import torch_state
from qgate.engine.tuning.candidates import complexity, fallback, stages
from qgate.engine.tuning.data import tuning_inputs
from qgate.engine.tuning.trials import Trials
from qgate.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from qgate.config.model import ModelConfig, QuantizationConfig
    from qgate.engine.gate import Gate
    from qgate.engine.progress import Progress
    from qgate.engine.tuning.candidates import Change
    from qgate.engine.tuning.trials import Trial

__all__ = ["Tuned", "pareto_front", "tune"]

# Of a distance, or of the drop that a limit allows: no gain that is worth a slower recipe, or one that says more.
_NEGLIGIBLE_DISTANCE = 0.02
_NEGLIGIBLE_DROP = 0.05


@dataclass(frozen=True)
class Attempt:
    """A recipe that was tried, and what to call it: what it changes about the recipe of the file."""

    label: str
    trial: Trial


@dataclass(frozen=True)
class Tuned:
    """What a search found: every attempt in order, the best, and how many recipes there was no time for.

    `metric` is that of the attempts' `accuracy`.
    """

    metric: str
    attempts: list[Attempt]
    best: Attempt
    untried: int
    num_samples: int
    seconds: float


def tune(gate: Gate, name: str, max_seconds: float, progress: Progress) -> Tuned:
    """Search one model's best recipe on calibration data held out for that; the evaluation data is not touched.

    An attempt takes the place of the best so far where the data shows that it is more accurate, by more than a
    fiftieth of the distance (a twentieth of the drop that is allowed, where a metric compares), and it keeps the limits
    on speed and size; where it does not, the faster does, and among those the simpler. Raises `QGateError`.
    """
    begin = time.perf_counter()
    model, settings = gate.config.models[name], gate.config.qgate
    _check_untrained(model)
    with torch_state(seed=settings.seed, num_threads=settings.num_threads):
        inputs = tuning_inputs(model, gate.inputs(name), gate.registry, settings.seed, progress)
        workers = gate.workers(model)
        if workers:
            own = gate.inputs(name)
            conditions = Reuse(gate.config, model, gate.registry, gate.environment).conditions(own.loaded)
            workers.start(conditions, len(own.evaluation))
        trials = Trials(gate, model, inputs, settings.results.parent / "tune", workers)
        search = _Search(gate, model, trials, begin + max_seconds, progress)
        search.run()
    found = (trials.table.metric, search.attempts, search.best, search.untried, len(inputs.evaluation))
    return Tuned(*found, time.perf_counter() - begin)


def _check_untrained(model: ModelConfig) -> None:
    recipe = model.quantization
    if recipe.approach == "qat":
        raise ConfigError(
            f'[models.{model.name}.quantization] approach = "qat" would be trained anew for each recipe; tune it with '
            'approach = "ptq", and train from the recipe that is found',
            path=recipe.place.path,
            line=recipe.place.line,
        )


class _Search:
    def __init__(self, gate: Gate, model: ModelConfig, trials: Trials, deadline: float, progress: Progress) -> None:
        self._gate = gate
        self._model = model
        self._trials = trials
        self._deadline = deadline
        self._progress = progress
        self._longest = 0.0
        # So many comparisons are made: that none of them is won by luck is as sure as a verdict (Bonferroni).
        num_changes = sum(map(len, stages(gate.registry, model.quantization.backend))) + 1
        self._confidence = 1 - (1 - gate.config.qgate.confidence) / num_changes
        self._max_drop = trials.table.limits.get("max_drop", 0.0)
        self.untried = 0
        self.attempts: list[Attempt] = []
        # Float layers make up for a recipe's noise, so they are looked for last.
        self.best = self._attempt("as it is", replace(model.quantization, fallback=FallbackConfig()))

    def run(self) -> None:
        """Ask every question once."""
        for changes in stages(self._gate.registry, self._model.quantization.backend):
            self._ask(changes)
        self._ask([fallback(self._model.quantization)])

    def _ask(self, changes: Iterable[Change]) -> None:
        start, changes = self.best, list(changes)
        tried = [attempt.trial.recipe for attempt in self.attempts]
        new = [recipe for change in changes if (recipe := change.applied(start.trial.recipe)) not in tried]
        self._trials.ask_ahead(new, max(self._deadline - time.perf_counter(), self._longest))
        for change in changes:
            recipe = change.applied(start.trial.recipe)
            if any(recipe == attempt.trial.recipe for attempt in self.attempts):
                continue
            if not self._has_time(recipe):
                self.untried += 1
                continue
            label = change.label if start is self.attempts[0] else f"{start.label}, {change.label}"
            self._consider(self._attempt(label, recipe))

    def _attempt(self, label: str, recipe: QuantizationConfig) -> Attempt:
        begin = time.perf_counter()
        self._progress.start(label, None)
        attempt = Attempt(label, self._trials.run(recipe, max(self._deadline - begin, self._longest)))
        self._progress.finish()
        self._longest = max(self._longest, time.perf_counter() - begin)
        self.attempts.append(attempt)
        return attempt

    def _has_time(self, recipe: QuantizationConfig) -> bool:
        return self._trials.is_known(recipe) or time.perf_counter() + self._longest <= self._deadline

    def _consider(self, attempt: Attempt) -> None:
        if self._prefers(attempt.trial, self.best.trial):
            self.best = attempt

    def _prefers(self, new: Trial, old: Trial) -> bool:
        shown = (self._confidence, self._negligible(old))
        if self._keeps_limits(new) != self._keeps_limits(old):
            return self._keeps_limits(new)
        if new.more_accurate(old, *shown) or old.more_accurate(new, *shown):
            return new.more_accurate(old, *shown)
        if new.faster(old) or old.faster(new):
            return new.faster(old)
        return complexity(new.recipe) < complexity(old.recipe)

    def _negligible(self, old: Trial) -> float:
        return _NEGLIGIBLE_DISTANCE * old.distance.value if old.distance else _NEGLIGIBLE_DROP * self._max_drop

    def _keeps_limits(self, trial: Trial) -> bool:
        """Say whether a recipe works and no limit on speed or size is shown to be missed."""
        if trial.failure:
            return False
        fastest = trial.speedup_interval[1] if trial.speedup_interval else None
        return not (
            _is_below(fastest, self._floor("speedup")) or _is_below(trial.size_reduction, self._floor("size_reduction"))
        )

    def _floor(self, metric: str) -> float | None:
        table = self._model.thresholds.get(metric)
        return table.limits.get("lower_bound") if table else None


def _is_below(value: float | None, floor: float | None) -> bool:
    return value is not None and floor is not None and value < floor


def pareto_front(attempts: Iterable[Attempt]) -> list[Attempt]:
    """Give the attempts to which no other is at least equal in accuracy, speed and size, and better in one.

    By point values; of equals, the first.
    """
    sound = [attempt for attempt in attempts if not attempt.trial.failure]
    return [one for one in sound if not any(_dominates(other, one, sound) for other in sound)]


def _dominates(other: Attempt, one: Attempt, order: list[Attempt]) -> bool:
    theirs, ours = _figures(other.trial), _figures(one.trial)
    if theirs == ours:
        return order.index(other) < order.index(one)
    return all(a >= b for a, b in zip(theirs, ours, strict=True))


def _figures(trial: Trial) -> tuple[float, float, int]:
    """Give accuracy, speed and size, each greater where it is better."""
    return trial.fidelity.signed if trial.fidelity else -math.inf, trial.speedup or 0.0, -(trial.bytes or 0)
