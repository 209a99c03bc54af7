"""The steps of one model's gate, in order; no step reaches back."""

from __future__ import annotations

import os
import time
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from qgate import __version__
from qgate.engine.artifact import artifact_bytes, float_bytes, load_artifact, write_artifact
from qgate.engine.collapse import check_collapse
from qgate.engine.digest import digest, evaluator_settings
from qgate.engine.evaluate import brief, evaluate
from qgate.engine.explain import kernels, slowest
from qgate.engine.figures import Comparison, size_figures
from qgate.engine.judge import judge
from qgate.engine.overlap import check_overlap, fingerprints
from qgate.engine.progress import StepClock
from qgate.engine.quantize import choose_calibration, describe, quantize
from qgate.engine.regression import with_regressions
from qgate.engine.state import torch_state
from qgate.engine.timing import Goal, measure
from qgate.errors import QGateError
from qgate.quantization.float_forms import float_forms
from qgate.results import Artifact, ModelResult
from qgate.statistics import judge_interval

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    import torch

    from qgate.blessed import Entry
    from qgate.config.model import GateConfig, ModelConfig, ThresholdConfig
    from qgate.engine.load import Inputs
    from qgate.engine.progress import Progress
    from qgate.plugins import Registry
    from qgate.protocols import LoadedModel, Metric

__all__ = ["Run"]


class Run:
    """One model's gate: what it needs, and what it has found so far."""

    def __init__(
        self,
        config: GateConfig,
        model: ModelConfig,
        registry: Registry,
        environment: dict[str, Any],
        progress: Progress,
    ) -> None:
        self.config = config
        self.model = model
        self.registry = registry
        self.environment = environment
        self.clock = StepClock(progress)
        self.quantization: dict[str, Any] = {}
        self.artifact: Artifact | None = None
        self.kernels: dict[str, int] = {}
        self.metrics: dict[str, dict[str, Any]] = {}
        self.num_evaluation_samples = 0
        self.conditions: dict[str, Any] = {}
        self.blessed_speedup: Entry | None = None
        self.calibration_overlap: int | None = None
        self.notes: list[str] = []

    def judged(
        self,
        open_inputs: Callable[[], Inputs],
        *,
        blessed: Mapping[str, Entry] | None,
        timing: bool,
        preflight_seconds: float = 0.0,
    ) -> ModelResult:
        """Run every step and judge; a step that fails leaves its limits, and those of later steps, unmeasured.

        `blessed` is what int8 was accepted with; None says that it is accepted with what this run finds.
        `preflight_seconds` were spent on opening the inputs already; they count as loading.
        """
        begin = time.perf_counter() - preflight_seconds
        self.blessed_speedup = (blessed or {}).get("speedup")
        reason = ""
        try:
            with self._torch_state():
                self._measure(open_inputs, timing=timing)
        except QGateError as error:  # limits are shown with the file that they are in
            reason = f"line {error.line}: {error.message}" if error.path == self.config.path else str(error)
        except Exception as error:  # noqa: BLE001  # a crash of a plugin or of torch is a failure with a reason
            reason = " ".join(brief(error).split())
        if not reason and not timing:
            reason = "timing was switched off for this run"
        self.clock.seconds["load"] = self.clock.seconds.get("load", 0.0) + preflight_seconds
        self._compare_with(blessed)
        verdicts = judge(self.model.limit_tables, self.metrics, reason, self.num_evaluation_samples)
        return ModelResult(
            quantization=self.quantization,
            artifact=self.artifact,
            kernels=self.kernels,
            num_evaluation_samples=self.num_evaluation_samples,
            metrics=self.metrics,
            verdicts=verdicts,
            seconds={**self.clock.seconds, "total": time.perf_counter() - begin},
            notes=tuple(self.notes),
            conditions=self.conditions,
            calibration_overlap=self.calibration_overlap,
        )

    def exported(self, open_inputs: Callable[[], Inputs], output: Path) -> Artifact:
        """Quantize and write the artifact, nothing more. Raises `QGateError`."""
        with self._torch_state():
            inputs = self._load(open_inputs)
            return self._write_artifact(inputs, self._choose_calibration(inputs), output)

    def _torch_state(self) -> Any:
        return torch_state(seed=self.config.qgate.seed, num_threads=self.config.qgate.num_threads)

    def _measure(self, open_inputs: Callable[[], Inputs], *, timing: bool) -> None:
        inputs = self._load(open_inputs)
        chosen = self._choose_calibration(inputs)
        evaluation = self._check_overlap(inputs, chosen)
        path = self.config.qgate.artifacts / f"{self.model.name}.pt"
        self.artifact = self._write_artifact(inputs, chosen, path)
        with self.clock.step("reload"):
            int8 = self._load_int8(path)
            floats = float_forms(
                inputs.loaded.module, inputs.loaded.example_inputs, self.model.quantization.non_traceable
            )
            self._name_kernels(path, inputs.loaded.example_inputs)
        self.metrics["size_reduction"] = size_figures(float_bytes(inputs.loaded.module), self.artifact.bytes)
        arms = {"float32": floats.get("frozen", floats["eager"]), "int8": int8}
        with self.clock.step("collapse"):
            written = self.config.path.parent / self.artifact.path
            check_collapse(inputs, chosen, arms, written, self.registry)
        self._evaluate(inputs, arms, evaluation)
        if timing and "speedup" in self.model.thresholds:
            self._time({**floats, "int8": int8}, inputs.loaded.example_inputs)
            self._blame_layers(inputs.loaded, path)

    def _load(self, open_inputs: Callable[[], Inputs]) -> Inputs:
        with self.clock.step("load"):
            return open_inputs()

    def _load_int8(self, path: Path) -> torch.nn.Module:
        return load_artifact(path, registry=self.registry)

    def _name_kernels(self, path: Path, example_inputs: tuple[torch.Tensor, ...]) -> None:
        try:
            self.kernels = kernels(path, self.registry, example_inputs)
        except Exception as error:  # noqa: BLE001  # a run that can be judged is judged, with or without their names
            self.notes.append(f"which kernels ran could not be told: {brief(error)}")

    def _choose_calibration(self, inputs: Inputs) -> list[int]:
        chosen = choose_calibration(self.model, self.registry, inputs, self.config.qgate.seed)
        wanted = self.model.data.calibration.num_samples or 0
        if len(chosen) < wanted:
            self.notes.append(f"calibrated on {len(chosen)} samples, where num_samples asks for {wanted}")
        return chosen

    def _check_overlap(self, inputs: Inputs, chosen: list[int]) -> list[str]:
        """Look for calibration samples among the evaluation samples; give the latter's fingerprints."""
        with self.clock.step("hash"):
            calibration = fingerprints(inputs.calibration, chosen)
            evaluation = fingerprints(inputs.evaluation, range(len(inputs.evaluation)))
        self.calibration_overlap, note = check_overlap(calibration, evaluation, self.model.data)
        self.notes += [note] if note else []
        return evaluation

    def _write_artifact(self, inputs: Inputs, chosen: list[int], path: Path) -> Artifact:
        reference, recipe = quantize(self.model, self.registry, inputs, chosen, self.clock)
        self.quantization = describe(self.model, recipe, len(chosen), self.config.qgate.seed)
        header = {
            "model": self.model.name,
            "qgate_version": __version__,
            "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "source_sha256": inputs.loaded.source_sha256,
            "quantization": self.quantization,
            "byte_scale": inputs.loaded.byte_scale,
            "input_description": dict(inputs.loaded.input_description),
            "class_names": list(inputs.loaded.class_names),
            "environment": self.environment,
        }
        with self.clock.step("artifact"):
            content = artifact_bytes(reference, inputs.loaded.example_inputs, header)
            written = write_artifact(path, content)
        return Artifact(os.path.relpath(path, self.config.path.parent), written.bytes, written.sha256)

    def _evaluate(self, inputs: Inputs, arms: dict[str, torch.nn.Module], fingerprints: list[str]) -> None:
        """Measure accuracy, and note the conditions; `fingerprints` are those of the evaluation samples."""
        metrics = {arm: self._new_metrics(arm, inputs.loaded.class_names) for arm in arms}
        with self.clock.step("evaluate", len(inputs.evaluation)) as progress:
            targets = evaluate(inputs.loaded, arms, inputs.evaluation, metrics, progress)
        self.num_evaluation_samples = len(inputs.evaluation)
        self.conditions = self._conditions(digest([fingerprints, targets]))
        with self.clock.step("metrics"):
            for name in metrics["int8"]:
                self.metrics[name] = self._compare(self.model.thresholds[name], metrics)

    def _new_metrics(self, arm: str, class_names: tuple[str, ...]) -> dict[str, Metric]:  # noqa: ARG002  # `selftest` asks
        names = [name for name in self.model.thresholds if name in self.registry.metrics]
        return {name: self.registry.metrics.get(name)(class_names) for name in names}

    def _compare(self, table: ThresholdConfig, metrics: dict[str, dict[str, Metric]]) -> dict[str, Any]:
        float32, int8 = (metrics[arm][table.metric] for arm in ("float32", "int8"))
        settings = self.config.qgate
        comparison = Comparison(float32, int8, self.num_evaluation_samples, settings.confidence, settings.seed)
        return comparison.figures([item.where for item in table.slices if item.where])

    def _conditions(self, data_sha256: str) -> dict[str, Any]:
        evaluator = {"loader": self.model.loader, **evaluator_settings(self.model.options)}
        machine = {key: self.environment[key] for key in ("isa", "cpu", "num_threads")}
        return {"data_sha256": data_sha256, "evaluator": evaluator, "seed": self.config.qgate.seed, **machine}

    def _compare_with(self, blessed: Mapping[str, Entry] | None) -> None:
        self.metrics = with_regressions(self.metrics, blessed, self.conditions, self.config.qgate.confidence)

    def _time(self, forms: dict[str, torch.nn.Module], example_inputs: tuple[torch.Tensor, ...]) -> None:
        settings = self.config.qgate
        goal = Goal(self._speed_floors(), settings.confidence, settings.seed)
        with self.clock.step("timing") as progress:
            self.metrics["speedup"] = measure(forms, example_inputs, self.model.timing, goal, progress)

    def _blame_layers(self, loaded: LoadedModel, path: Path) -> None:
        """Find the layers that cost most where the demanded speedup is not shown."""
        figures, floor = self.metrics["speedup"], self.model.thresholds["speedup"].limits.get("lower_bound")
        interval = figures["interval"]
        if floor is None or (interval and judge_interval(interval, floor, floor=True) == "passed"):
            return
        try:
            with self.clock.step("explain"):
                figures["slowest"] = slowest(loaded, path, self.registry, floor)
        except Exception as error:  # noqa: BLE001  # the limit is missed, whatever the search runs into
            self.notes.append(f"which layers cost most time could not be found out: {brief(error)}")

    def _speed_floors(self) -> list[float]:
        """Give what the speedup must exceed; the floor that a blessed one sets is itself known within an interval."""
        limits = self.model.thresholds["speedup"].limits
        floors = [limits["lower_bound"]] if "lower_bound" in limits else []
        if "max_regression" in limits and self.blessed_speedup:
            low, high = self.blessed_speedup.interval or (self.blessed_speedup.value,) * 2
            floors += [low - limits["max_regression"], high - limits["max_regression"]]
        return floors
