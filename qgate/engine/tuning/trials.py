"""One recipe, tried: a run of the gate on the data held out for tuning."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from qgate.config.model import QuantizationConfig, ThresholdConfig
from qgate.engine.artifact import write_artifact
from qgate.engine.digest import digest, relevant
from qgate.engine.overlap import fingerprints
from qgate.engine.progress import Silent
from qgate.engine.reuse import Reuse
from qgate.engine.run import Run
from qgate.engine.shipping import load_shipped, ship
from qgate.engine.tuning.candidates import settings
from qgate.engine.tuning.views import mean_distances
from qgate.errors import ConfigError
from qgate.outputs import trials_output
from qgate.resampled import decode, encode
from qgate.statistics import resamples, standard_interval

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from qgate.config.model import ModelConfig
    from qgate.engine.gate import Gate
    from qgate.engine.load import Inputs
    from qgate.engine.sharded import Workers
    from qgate.results import Interval, ModelResult

__all__ = ["Figure", "Trial", "Trials", "accuracy_table", "plain_trial"]

_TIMING_SECONDS = 20.0


@dataclass(frozen=True)
class Figure:
    """What recipes are compared by: its value, and `resampled`, the same in each bootstrap resample, encoded."""

    name: str
    value: float
    resampled: str
    samples: int
    higher_is_better: bool

    def better(self, other: Figure, confidence: float, margin: float = 0.0) -> bool:
        """Say whether the data shows that this is better than another of its kind, by more than `margin`."""
        lost = other.signed - self.signed
        resampled = (decode(other.resampled) - decode(self.resampled)) * self._sign
        interval = standard_interval(resampled, lost, self.samples, confidence)
        return interval is not None and interval[1] < 0 and lost < -margin

    @property
    def signed(self) -> float:
        """Give the value, greater where it is better."""
        return self._sign * self.value

    @property
    def _sign(self) -> int:
        return 1 if self.higher_is_better else -1


@dataclass(frozen=True)
class Trial:
    """What became of a recipe.

    `accuracy` is a metric with float32's predictions for targets; `distance` is the loader's distillation loss of
    int8's raw outputs, where it has one, over views of the samples: then recipes are compared by it, for it tells
    smaller differences apart. `speedup` was measured once for all recipes of the same kernels. `failure` says why there
    are no figures; then the others are None. `cut_short` says that time was up before its search for float layers had
    ended.
    """

    recipe: QuantizationConfig
    accuracy: Figure | None = None
    distance: Figure | None = None
    bytes: int | None = None
    size_reduction: float | None = None
    speedup: float | None = None
    speedup_interval: Interval | None = None
    seconds: float = 0.0
    failure: str = ""
    cut_short: bool = False

    @property
    def fidelity(self) -> Figure | None:
        """Give what says how much of float32 the recipe keeps."""
        return self.distance or self.accuracy

    def more_accurate(self, other: Trial, confidence: float, margin: float = 0.0) -> bool:
        """Say whether the data shows that this recipe keeps more of float32 than another, by more than `margin`."""
        if self.fidelity is None or other.fidelity is None:
            return self.fidelity is not None
        return self.fidelity.better(other.fidelity, confidence, margin)

    def faster(self, other: Trial) -> bool:
        """Say whether it was measured to be faster than another, beyond the errors of both."""
        if not self.speedup_interval or not other.speedup_interval:
            return False
        return self.speedup_interval[0] > other.speedup_interval[1]


def accuracy_table(model: ModelConfig, gate: Gate) -> ThresholdConfig:
    """Give the limits of the metric that recipes are compared by: the first accuracy metric of the file.

    Raises `ConfigError` where there is none.
    """
    for name, table in model.thresholds.items():
        if name in gate.registry.metrics:
            return table
    raise ConfigError(
        f"[models.{model.name}.thresholds] limits no accuracy metric, by which recipes could be compared",
        path=model.place.path,
        line=model.place.line,
    )


class Trials:
    """Tries recipes on one model's tuning data, each once; what was tried before an interruption is remembered.

    `folder` holds what is remembered, and the last trial's artifact. Where there are `workers`, they try what is asked
    for ahead; how fast it is, is measured in this process.
    """

    def __init__(
        self, gate: Gate, model: ModelConfig, inputs: Inputs, folder: Path, workers: Workers | None = None
    ) -> None:
        self.table = accuracy_table(model, gate)
        self._gate = gate.writing_to(folder)
        self._model = model
        self._inputs = inputs
        self._store = folder / f"{model.name}.json"
        self._conditions = self._describe_conditions()
        self._known = self._remembered()
        self._workers = workers
        self._ahead: Iterator[tuple[str, dict[str, Any]]] = iter(())

    def is_known(self, recipe: QuantizationConfig) -> bool:
        """Say whether a recipe was tried already."""
        return _key(recipe) in self._known

    def ask_ahead(self, recipes: Iterable[QuantizationConfig], max_seconds: float) -> None:
        """Let workers try recipes, of which `run` will be asked next and in this order, as far as it is asked."""
        new = [recipe for recipe in recipes if not self.is_known(recipe) and not recipe.fallback.max_layers]
        if self._workers and new:
            wanted = [(recipe, self._speed_of(recipe) is None) for recipe in new]
            self._ahead = zip(map(_key, new), self._workers.tried(wanted, max_seconds), strict=True)

    def run(self, recipe: QuantizationConfig, max_seconds: float) -> Trial:
        """Try a recipe; its search for float layers and its rounding take `max_seconds` at most, each.

        What a recipe fails with is its `failure`, which is not remembered, nor is a search cut short. Raises
        `ResultsError` where nothing can be.
        """
        key = _key(recipe)
        if key in self._known:
            return trial_of(self._known[key], recipe)
        found = next((result for other, result in self._ahead if other == key), None)
        trial = self._completed(found, recipe) if found else self.attempt(recipe, max_seconds)
        if not (trial.failure or trial.cut_short):
            self._known[key] = {**plain_trial(trial), "kernels": _kernels(trial.recipe)}
            self._remember()
        return trial

    def attempt(self, recipe: QuantizationConfig, max_seconds: float, *, timed: bool = True) -> Trial:
        """Try a recipe in this process; with `timed`, its speed is measured where it is not known."""
        timed = timed and self._speed_of(recipe) is None
        metrics = ("size_reduction", *(["speedup"] if timed else []))
        place = self._model.place
        accuracy = replace(self.table, limits={"max_drop": math.inf}, slices=())
        limits = {accuracy.metric: accuracy, **{name: ThresholdConfig(name, {}, place) for name in metrics}}
        if recipe.fallback.max_layers:  # what float layers are looked for
            limits = {**limits, **self._model.thresholds}
        timing = replace(self._model.timing, max_seconds=min(_TIMING_SECONDS, self._model.timing.max_seconds))
        bounded = replace(recipe, rounding_seconds=min(recipe.rounding_seconds, max_seconds))
        model = replace(self._model, quantization=bounded, thresholds=limits, timing=timing)
        run = self._new_run(model)
        run.production.fallback_seconds = max_seconds
        trial = self._trial(recipe, run.judged(lambda: self._inputs, blessed=None, timing=timed))
        if trial.failure:
            return trial
        distance = self._distance()
        if distance and not math.isfinite(distance.value):
            failure = f"the loader's distillation_loss is {distance.value} for int8's raw outputs"
            return Trial(recipe, seconds=trial.seconds, failure=failure)
        return replace(trial, distance=distance, cut_short=run.production.cut_short)

    def artifact(self) -> Path:
        """Give the last trial's artifact."""
        return self._gate.config.qgate.artifacts / f"{self._model.name}.pt"

    def _new_run(self, model: ModelConfig) -> Run:
        return Run(self._gate.config, model, self._gate.registry, self._gate.environment, Silent())

    def _completed(self, found: dict[str, Any], recipe: QuantizationConfig) -> Trial:
        """Give what a worker has found, with the speed, which is measured here where it is not known."""
        trial = trial_of(found["trial"], recipe)
        if trial.failure:
            return trial
        return replace(trial, **(self._speed_of(recipe) or self._measured(recipe, found["artifact"])))

    def _measured(self, recipe: QuantizationConfig, artifact: bytes) -> dict[str, Any]:
        write_artifact(self.artifact(), artifact)
        ship(self.artifact(), self._gate.registry)
        timing = replace(self._model.timing, max_seconds=min(_TIMING_SECONDS, self._model.timing.max_seconds))
        limits = {"speedup": ThresholdConfig("speedup", {}, self._model.place)}
        model = replace(self._model, quantization=recipe, thresholds=limits, timing=timing)
        figures = self._new_run(model).timed(self._inputs.loaded, self.artifact())
        return {"speedup": figures["value"], "speedup_interval": figures["interval"]}

    def _trial(self, recipe: QuantizationConfig, result: ModelResult) -> Trial:
        figures = result.metrics.get(self.table.metric)
        unmeasured = [verdict.message for verdict in result.verdicts if verdict.metric == self.table.metric]
        failed = Trial(recipe, seconds=result.seconds["total"], failure=unmeasured[0])
        if figures is None or result.artifact is None:
            return failed
        said = (figures["candidate"], figures["resampled"], figures["samples"], figures["higher_is_better"])
        timed = result.metrics.get("speedup")
        measured = {"speedup": timed["value"], "speedup_interval": timed["interval"]} if timed else {}
        return replace(
            failed,
            accuracy=Figure(self.table.metric, *said),
            bytes=result.artifact.bytes,
            size_reduction=result.metrics["size_reduction"]["value"],
            failure="",
            **(measured or self._speed_of(recipe) or {}),
        )

    def _distance(self) -> Figure | None:
        """Measure the raw outputs of the artifact that was made last; None where the loader has no loss for them."""
        loaded, samples = self._inputs.loaded, self._inputs.evaluation
        if loaded.distillation_loss is None:
            return None
        int8 = load_shipped(self.artifact(), self._gate.registry)
        options = self._model.quantization.training.augment
        distances = mean_distances(loaded, int8, samples, loaded.distillation_loss, options)
        means = [rows @ distances / rows.sum(1) for rows in resamples(len(distances), self._gate.config.qgate.seed)]
        return Figure("distance", float(distances.mean()), encode(np.concatenate(means)), len(distances), False)

    def _speed_of(self, recipe: QuantizationConfig) -> dict[str, Any] | None:
        """Give the speed that another recipe of the same kernels was measured to have; float layers differ."""
        if recipe.fallback.max_layers:
            return None
        for known in self._known.values():
            if known["kernels"] == _kernels(recipe) and known["speedup"] is not None:
                return {name: known[name] for name in ("speedup", "speedup_interval")}
        return None

    def _describe_conditions(self) -> str:
        """Hash what trials depend on beside the recipe: another model, data, machine or qgate, and all is forgotten."""
        gate, inputs, model = self._gate, self._inputs, self._model
        indices = range(len(inputs.evaluation))
        described = {
            "all": Reuse(gate.config, model, gate.registry, gate.environment).conditions(inputs.loaded),
            "verdicts": [gate.config.qgate.confidence, gate.config.qgate.on_inconclusive],
            "limits": [relevant(table) for table in model.thresholds.values()],
            "timing": relevant(model.timing),
            "non_traceable": model.quantization.non_traceable,
            "augment": relevant(model.quantization.training.augment),
            "metric": self.table.metric,
            "samples": [fingerprints(part, range(len(part))) for part in (inputs.calibration, inputs.evaluation)],
            "num_samples": model.data.calibration.num_samples,
            "targets": [digest(inputs.evaluation.sample(index).target) for index in indices],
        }
        return digest(described)

    def _remembered(self) -> dict[str, dict[str, Any]]:
        try:
            stored = json.loads(self._store.read_bytes())
        except (OSError, ValueError):  # nothing was tried yet, or it is damaged: it is tried again
            return {}
        fits = isinstance(stored, dict) and stored.get("conditions") == self._conditions
        return dict(stored["trials"]) if fits else {}

    def _remember(self) -> None:
        content = {"conditions": self._conditions, "trials": self._known}
        trials_output(self._store).write(json.dumps(content).encode())


def plain_trial(trial: Trial) -> dict[str, Any]:
    """Give a trial as plain values, without its recipe."""
    return {name: value for name, value in asdict(trial).items() if name != "recipe"}


def trial_of(known: dict[str, Any], recipe: QuantizationConfig) -> Trial:
    """Give the trial that plain values are of."""
    compared = {name: Figure(**known[name]) if known[name] else None for name in ("accuracy", "distance")}
    return Trial(recipe, **{**{name: value for name, value in known.items() if name != "kernels"}, **compared})


def _key(recipe: QuantizationConfig) -> str:
    return digest(settings(QuantizationConfig(recipe.place), recipe))


def _kernels(recipe: QuantizationConfig) -> str:
    """Hash what decides how fast int8 is."""
    return digest([recipe.backend, recipe.ignored_scope, recipe.non_traceable, recipe.fallback])
