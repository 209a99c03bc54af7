"""The steps of one model's gate, in order; no step reaches back."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from qgate.engine.advice import advice, missed_metrics
from qgate.engine.artifact import float_bytes
from qgate.engine.collapse import check_collapse
from qgate.engine.digest import digest, evaluator_settings
from qgate.engine.evaluate import brief
from qgate.engine.fallback.find import Case, decided_by
from qgate.engine.figures import Evaluated, size_figures
from qgate.engine.findings import LAYER_CLASSES, Findings, look_at_layers
from qgate.engine.judge import judge
from qgate.engine.layer_times import kernels, slowest
from qgate.engine.overlap import check_overlap, fingerprints
from qgate.engine.production import Production
from qgate.engine.progress import StepClock
from qgate.engine.quantize import choose_calibration
from qgate.engine.regression import with_regressions
from qgate.engine.reuse import Reuse
from qgate.engine.shipping import exported_file, load_shipped, ship, shipped_files
from qgate.engine.state import torch_state
from qgate.engine.timing import Goal, measure
from qgate.engine.training.bought import with_gains
from qgate.errors import QGateError
from qgate.quantization.float_forms import float_forms
from qgate.results import Artifact, ModelResult
from qgate.statistics import judge_interval

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import torch

    from qgate.blessed import Entry
    from qgate.config.model import GateConfig, ModelConfig
    from qgate.engine.evaluate import Arms, Modules
    from qgate.engine.load import Inputs
    from qgate.engine.progress import Progress
    from qgate.engine.recording import Recording
    from qgate.engine.sharded import Workers
    from qgate.plugins import Registry
    from qgate.protocols import Exporter, LoadedModel, Metric

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
        self.workers: Workers | None = None
        self.reuse = Reuse(config, model, registry, environment)
        self.production = Production(config.path.parent, environment, self.reuse, self.clock)
        self.findings = Findings(registry, None)
        self._floats: dict[str, torch.nn.Module] = {}
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
        details: Path | None = None,
    ) -> ModelResult:
        """Run every step and judge; a step that fails leaves its limits, and those of later steps, unmeasured.

        `blessed` is what int8 was accepted with; None says that it is accepted with what this run finds.
        `preflight_seconds` were spent on opening the inputs already; they count as loading. What reports show beyond
        figures is written to `details`, where that is given.
        """
        self.findings = Findings(self.registry, details)
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
        written = self.findings.write(reason, self.config.path.parent)
        worked = self.workers.notes() if self.workers else []
        return ModelResult(
            quantization=self.production.quantization,
            artifact=self.artifact,
            kernels=self.kernels,
            num_evaluation_samples=self.num_evaluation_samples,
            metrics=self.metrics,
            verdicts=verdicts,
            seconds={**self.clock.seconds, "total": time.perf_counter() - begin},
            notes=(*self.notes, *self.production.notes, *self.reuse.notes, *worked, *self.findings.notes),
            conditions=self.conditions,
            calibration_overlap=self.calibration_overlap,
            cached=self.reuse.used,
            details=written,
            training=self.production.training,
        )

    def exported(self, open_inputs: Callable[[], Inputs], output: Path, exporter: Exporter | None = None) -> Artifact:
        """Quantize and write the artifact, or what `exporter` makes of it, nothing more. Raises `QGateError`."""
        with self._torch_state(), TemporaryDirectory(prefix="qgate-") as folder:
            inputs = self._load(open_inputs)
            chosen = self._choose_calibration(inputs)
            evaluation = self._evaluation_fingerprints(inputs)
            path = Path(folder) / "artifact.pt" if exporter else output
            artifact = self._produce(self._case(inputs, chosen, evaluation, path))
            return exported_file(path, exporter, output) if exporter else artifact

    def timed(self, loaded: LoadedModel, artifact: Path) -> dict[str, Any]:
        """Measure how fast an artifact is, nothing more; give the figures of `speedup`."""
        with self._torch_state():
            self._time(loaded, self._load_int8(artifact))
        return self.metrics["speedup"]

    def _torch_state(self) -> Any:
        return torch_state(seed=self.config.qgate.seed, num_threads=self.config.qgate.num_threads)

    def _measure(self, open_inputs: Callable[[], Inputs], *, timing: bool) -> None:
        inputs = self._load(open_inputs)
        chosen = self._choose_calibration(inputs)
        evaluation = self._check_overlap(inputs, chosen)
        path = self._path("int8")
        case = self._case(inputs, chosen, evaluation, path, timed=timing)
        produced = self._produce(case)
        untrained = self._untrained(case)
        written = replace(case, artifact=self.config.path.parent / produced.path)
        with self.clock.step("artifact"):
            shipped = ship(written.artifact, self.registry)
        self.artifact = self.production.relative(shipped) if shipped else produced
        with self.clock.step("reload"):
            int8 = self._load_int8(path)
            modules, cases = {"int8": int8}, {"int8": written}
            if untrained:
                modules["ptq"], cases["ptq"] = load_shipped(untrained.artifact, self.registry), untrained
            recordings = self._recordings(inputs.loaded, modules, cases)
            arms = self._arms(inputs.loaded, modules, recordings)
            self._name_kernels(case)
        self.metrics["size_reduction"] = size_figures(float_bytes(inputs.loaded.module), self.artifact.bytes)
        with self.clock.step("collapse"):
            self._check_collapse(written, int8)
        self._evaluate(inputs, arms, evaluation, recordings)
        if timing and "speedup" in self.model.thresholds:
            self._time(inputs.loaded, int8)
            self._blame_layers(inputs.loaded, path)
        self._advise(case)
        self._look_at_layers(written)

    def _load(self, open_inputs: Callable[[], Inputs]) -> Inputs:
        with self.clock.step("load"):
            inputs = open_inputs()
            if self.workers:
                self.reuse.workers = self.workers
                self.workers.start(self.reuse.conditions(inputs.loaded), len(inputs.evaluation))
            return inputs

    def _load_int8(self, path: Path) -> torch.nn.Module:
        return load_shipped(path, self.registry)

    def _path(self, arm: str) -> Path:
        """Say where an arm's artifact is written."""
        folder = self.config.qgate.artifacts
        return (folder if arm == "int8" else folder / arm) / f"{self.model.name}.pt"

    def _recordings(self, loaded: LoadedModel, modules: Modules, cases: Mapping[str, Case]) -> dict[str, Recording]:
        """Give what is known of all arms' predictions; of those that workers make, nothing comes here."""
        if self.workers:
            return {}
        float32 = self.reuse.recording("float32", loaded.module, cases["int8"])
        int8 = {arm: self.reuse.recording(arm, modules[arm], case, case.artifact) for arm, case in cases.items()}
        return {"float32": float32, **int8}

    def _arms(self, loaded: LoadedModel, modules: Modules, recordings: Mapping[str, Recording]) -> Arms:
        """Give the arms as they are evaluated: what they are known to predict, or else what is run."""
        known = {arm: recording.known for arm, recording in recordings.items() if recording.known is not None}
        if "float32" in known:
            return {**modules, **known}
        if self.workers:
            return {"float32": loaded.module, **modules}
        forms = self._float_forms(loaded)
        return {"float32": forms.get("frozen", forms["eager"]), **modules, **known}

    def _float_forms(self, loaded: LoadedModel) -> dict[str, torch.nn.Module]:
        """Give the forms of float32, made where they are first needed: to predict, or else to be timed."""
        if not self._floats:
            kept_whole = self.model.quantization.non_traceable
            self._floats = float_forms(loaded.module, loaded.example_inputs, kept_whole)
        return self._floats

    def _check_collapse(self, case: Case, int8: torch.nn.Module) -> None:
        """Check for collapse, unless the artifact is one that has passed."""
        arms = {"float32": case.inputs.loaded.module, "int8": int8}
        self.reuse.found(
            "collapse", case, lambda: check_collapse(case.inputs, case.chosen, arms, case.artifact, self.registry)
        )

    def _name_kernels(self, case: Case) -> None:
        example_inputs = case.inputs.loaded.example_inputs
        try:
            self.kernels = self.reuse.found(
                "kernels", case, lambda: kernels(case.artifact, self.registry, example_inputs)
            )
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
            evaluation = self._evaluation_fingerprints(inputs)
        self.calibration_overlap, note = check_overlap(calibration, evaluation, self.model.data)
        self.notes += [note] if note else []
        return evaluation

    def _evaluation_fingerprints(self, inputs: Inputs) -> list[str]:
        if self.workers:
            return self.workers.hashes(inputs)
        return fingerprints(inputs.evaluation, range(len(inputs.evaluation)))

    def _case(
        self, inputs: Inputs, chosen: list[int], evaluation: list[str], path: Path, *, timed: bool = True
    ) -> Case:
        return Case(self.model, self.config.qgate, self.registry, inputs, chosen, evaluation, path, timed)

    def _produce(self, case: Case) -> Artifact:
        return self.production.produce(case)

    def _untrained(self, case: Case) -> Case | None:
        return self.production.produce_untrained(case, self._path("ptq"))

    def _advise(self, case: Case) -> None:
        """Find the layers to look at, and those to keep float, where a limit on accuracy is missed."""
        missed = missed_metrics(case, self.metrics)
        if not missed:
            return
        try:
            with self.clock.step("explain") as progress:
                depends_on = [missed, *decided_by(case)]
                given, _ = self.reuse.found(
                    "advice", case, lambda: advice(case, progress), depends_on, is_final=lambda found: found[1]
                )
            self.metrics.update({name: {**self.metrics[name], **given} for name in missed})
        except Exception as error:  # noqa: BLE001  # the limit is missed, whatever the search runs into
            self.notes.append(f"which layers cost most accuracy could not be found out: {brief(error)}")

    def _evaluate(
        self, inputs: Inputs, arms: Arms, fingerprints: list[str], recordings: Mapping[str, Recording]
    ) -> None:
        """Measure accuracy, and note the conditions; `fingerprints` are those of the evaluation samples."""
        metrics = {arm: self._new_metrics(arm, inputs.loaded.class_names) for arm in arms}
        with self.clock.step("evaluate", len(inputs.evaluation)) as progress:
            if self.workers:
                files = {arm: shipped_files(self._path(arm), self.registry) for arm in arms if arm != "float32"}
                targets = self.workers.evaluate(inputs, fingerprints, files, metrics, progress)
            else:
                of_both = self.findings.watchers(inputs.loaded.class_names)
                targets = self.reuse.evaluated(inputs, arms, metrics, recordings, progress, of_both)
        self.num_evaluation_samples = len(inputs.evaluation)
        self.conditions = self._conditions(digest([fingerprints, targets]))
        with self.clock.step("metrics"):
            said = (self.num_evaluation_samples, self.config.qgate.confidence, self.config.qgate.seed)
            evaluated = Evaluated(metrics, self.model.thresholds, *said)
            figures = evaluated.figures("int8")
            if "ptq" in metrics:
                figures, status = with_gains(figures, evaluated, self.model.limit_tables)
                self.production.training["untrained_status"] = status
            self.metrics.update(figures)
        with self.clock.step("details"):
            if self.workers:
                self.findings.leave_out_panels("predictions stay with the workers of the executor that made them")
            else:
                self.findings.take_panels(inputs.evaluation)

    def _new_metrics(self, arm: str, class_names: tuple[str, ...]) -> dict[str, Metric]:  # noqa: ARG002  # `selftest` asks
        names = [name for name in self.model.thresholds if name in self.registry.metrics]
        return {name: self.registry.metrics.get(name)(class_names) for name in names}

    def _conditions(self, data_sha256: str) -> dict[str, Any]:
        evaluator = {"loader": self.model.loader, **evaluator_settings(self.model.options)}
        machine = {key: self.environment[key] for key in ("isa", "cpu", "num_threads")}
        return {"data_sha256": data_sha256, "evaluator": evaluator, "seed": self.config.qgate.seed, **machine}

    def _compare_with(self, blessed: Mapping[str, Entry] | None) -> None:
        self.metrics = with_regressions(self.metrics, blessed, self.conditions, self.config.qgate.confidence)

    def _time(self, loaded: LoadedModel, int8: torch.nn.Module) -> None:
        settings = self.config.qgate
        goal = Goal(self._speed_floors(), settings.confidence, settings.seed)
        with self.clock.step("timing") as progress:
            forms = {**self._float_forms(loaded), "int8": int8}
            measured = measure(forms, loaded.example_inputs, self.model.timing, goal, progress)
        self.metrics["speedup"] = measured.figures
        self.findings.take_times(measured)

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

    def _look_at_layers(self, case: Case) -> None:
        """Look at the noise of layers, for reports."""
        if self.findings.path is not None:
            with self.clock.step("details"):
                self.findings.take_layers(
                    lambda: self.reuse.found("layers", case, lambda: look_at_layers(case), classes=LAYER_CLASSES)
                )

    def _speed_floors(self) -> list[float]:
        """Give what the speedup must exceed; the floor that a blessed one sets is itself known within an interval."""
        limits = self.model.thresholds["speedup"].limits
        floors = [limits["lower_bound"]] if "lower_bound" in limits else []
        if "max_regression" in limits and self.blessed_speedup:
            low, high = self.blessed_speedup.interval or (self.blessed_speedup.value,) * 2
            floors += [low - limits["max_regression"], high - limits["max_regression"]]
        return floors
