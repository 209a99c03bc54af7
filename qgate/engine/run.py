"""The steps of one model's gate, in order; no step reaches back."""

from __future__ import annotations

import os
import time
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from qgate import __version__
from qgate.engine.artifact import artifact_bytes, float_bytes, load_artifact, write_artifact
from qgate.engine.evaluate import brief, evaluate
from qgate.engine.figures import metric_figures, size_figures
from qgate.engine.judge import judge
from qgate.engine.progress import StepClock
from qgate.engine.quantize import quantize
from qgate.engine.state import torch_state
from qgate.engine.timing import compare, measure
from qgate.errors import QGateError
from qgate.quantization.float_forms import float_forms
from qgate.results import Artifact, ModelResult

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import torch

    from qgate.config.model import GateConfig, ModelConfig
    from qgate.engine.load import Inputs
    from qgate.engine.progress import Progress
    from qgate.plugins import Registry

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
        self.metrics: dict[str, dict[str, Any]] = {}
        self.num_evaluation_samples = 0

    def judged(self, open_inputs: Callable[[], Inputs], *, timing: bool, preflight_seconds: float = 0.0) -> ModelResult:
        """Run every step and judge; a step that fails leaves its limits, and those of later steps, unmeasured.

        `preflight_seconds` were spent on opening the inputs already; they count as loading.
        """
        begin = time.perf_counter() - preflight_seconds
        reason = ""
        try:
            with self._torch_state():
                self._measure(open_inputs, timing=timing)
        except QGateError as error:
            reason = str(error)
        except Exception as error:  # noqa: BLE001  # a crash of a plugin or of torch is a failure with a reason
            reason = " ".join(brief(error).split())
        if not reason and not timing:
            reason = "timing was switched off for this run"
        self.clock.seconds["load"] = self.clock.seconds.get("load", 0.0) + preflight_seconds
        verdicts = judge(self.model.thresholds, self.metrics, reason)
        return ModelResult(
            quantization=self.quantization,
            artifact=self.artifact,
            num_evaluation_samples=self.num_evaluation_samples,
            metrics=self.metrics,
            verdicts=verdicts,
            seconds={**self.clock.seconds, "total": time.perf_counter() - begin},
        )

    def exported(self, open_inputs: Callable[[], Inputs], output: Path) -> Artifact:
        """Quantize and write the artifact, nothing more. Raises `QGateError`."""
        with self._torch_state():
            return self._write_artifact(self._load(open_inputs), output)

    def _torch_state(self) -> Any:
        return torch_state(seed=self.config.qgate.seed, num_threads=self.config.qgate.num_threads)

    def _measure(self, open_inputs: Callable[[], Inputs], *, timing: bool) -> None:
        inputs = self._load(open_inputs)
        path = self.config.qgate.artifacts / f"{self.model.name}.pt"
        self.artifact = self._write_artifact(inputs, path)
        with self.clock.step("reload"):
            int8 = load_artifact(path, registry=self.registry)
            floats = float_forms(
                inputs.loaded.module, inputs.loaded.example_inputs, self.model.quantization.non_traceable
            )
        self.metrics["size_reduction"] = size_figures(float_bytes(inputs.loaded.module), self.artifact.bytes)
        self._evaluate(inputs, {"float32": floats.get("frozen", floats["eager"]), "int8": int8})
        if timing and "speedup" in self.model.thresholds:
            self._time({**floats, "int8": int8}, inputs.loaded.example_inputs)

    def _load(self, open_inputs: Callable[[], Inputs]) -> Inputs:
        with self.clock.step("load"):
            return open_inputs()

    def _write_artifact(self, inputs: Inputs, path: Path) -> Artifact:
        reference, self.quantization = quantize(self.model, self.registry, inputs, self.config.qgate.seed, self.clock)
        header = {
            "model": self.model.name,
            "qgate_version": __version__,
            "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "source_sha256": inputs.loaded.source_sha256,
            "quantization": self.quantization,
            "input_description": dict(inputs.loaded.input_description),
            "class_names": list(inputs.loaded.class_names),
            "environment": self.environment,
        }
        with self.clock.step("artifact"):
            content = artifact_bytes(reference, inputs.loaded.example_inputs, header)
            written = write_artifact(path, content)
        return Artifact(os.path.relpath(path, self.config.path.parent), written.bytes, written.sha256)

    def _evaluate(self, inputs: Inputs, arms: dict[str, torch.nn.Module]) -> None:
        names = [name for name in self.model.thresholds if name in self.registry.metrics]
        classes = inputs.loaded.class_names
        metrics = {arm: {name: self.registry.metrics.get(name)(classes) for name in names} for arm in arms}
        with self.clock.step("evaluate", len(inputs.evaluation)) as progress:
            evaluate(inputs.loaded, arms, inputs.evaluation, metrics, progress)
        self.num_evaluation_samples = len(inputs.evaluation)
        with self.clock.step("metrics"):
            for name in names:
                self.metrics[name] = metric_figures(
                    metrics["float32"][name], metrics["int8"][name], self.num_evaluation_samples
                )

    def _time(self, forms: dict[str, torch.nn.Module], example_inputs: tuple[torch.Tensor, ...]) -> None:
        with self.clock.step("timing") as progress:
            timing = measure(forms, example_inputs, self.model.timing, progress)
        settings = self.config.qgate
        self.metrics["speedup"] = compare(timing, self.model.timing.baseline_form, settings.confidence, settings.seed)
