"""Proof that a gate can fail: faults of the kind that reach production, planted one at a time, must each be caught."""

from __future__ import annotations

import math
import tempfile
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from qgate.engine.artifact import edited_bytes, write_artifact
from qgate.engine.evaluate import postprocess, read_sample, run_arm
from qgate.engine.factory import FactoryDataset
from qgate.engine.run import Run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from qgate.engine.evaluate import Arms
    from qgate.engine.fallback.find import Case
    from qgate.engine.gate import Gate
    from qgate.engine.load import Inputs
    from qgate.engine.progress import Progress
    from qgate.engine.recording import Recording
    from qgate.protocols import Metric
    from qgate.results import Artifact, ModelResult, Verdict

__all__ = ["Outcome", "selftest"]

Tensors = dict[str, torch.Tensor]

_SCALE_FACTOR = 100.0
_MIN_BASELINE = 0.1  # a class that float32 can hardly find is no loss


@dataclass(frozen=True)
class Outcome:
    """What became of one fault: `caught` is None where it could not be planted; `message` says why, or what saw it."""

    fault: str
    description: str
    caught: bool | None
    message: str


@dataclass(frozen=True)
class Fault:
    """One fault, and where it is planted; `reason` says why it cannot be.

    `edit` changes the artifact's tensors, and raises `LookupError` where there is nothing to change; `wrap` changes the
    loaded int8 module, `damage` what it predicts, `inputs` the data.
    `metrics` are those that may see it; None is all but the speed, which then is not measured.
    """

    name: str
    description: str
    edit: Callable[[Tensors], None] | None = None
    wrap: Callable[[torch.nn.Module], torch.nn.Module] | None = None
    damage: Callable[[Any], Any] | None = None
    inputs: Callable[[Inputs], Inputs] | None = None
    metrics: tuple[str, ...] | None = None
    reason: str = ""


def selftest(gate: Gate, name: str, progress: Callable[[str], Progress]) -> Iterator[Outcome]:
    """Run the gate of a model as it is, then with each fault; give the outcome of each, that of no fault first.

    A fault is caught where a limit that holds without it does not hold with it. Nothing of the user's is written.
    Raises `QGateError` where model or data cannot be opened.
    """
    with tempfile.TemporaryDirectory(prefix="qgate-selftest-") as folder:
        sandbox = gate.writing_to(Path(folder), cache=Path(folder) / "cache")
        sandbox.preflight()
        control = sandbox.run(name, progress("as it is"))
        held = [verdict for verdict in control.verdicts if verdict.status == "passed"]
        yield _of_control(control, held)
        for fault in _faults(sandbox, name, control):
            yield _try(sandbox, name, fault, held, progress)


def _of_control(control: ModelResult, held: list[Verdict]) -> Outcome:
    missed = [verdict for verdict in control.verdicts if verdict.status != "passed"]
    said = "; ".join(f"{verdict.name} {verdict.status}: {verdict.message}" for verdict in missed)
    return Outcome("none", "the gate as it is", bool(missed), said or f"{len(held)} limits held")


def _try(gate: Gate, name: str, fault: Fault, held: list[Verdict], progress: Callable[[str], Progress]) -> Outcome:
    outcome = partial(Outcome, fault.name, fault.description)
    if fault.reason:
        return outcome(None, fault.reason)
    watching = {verdict.name for verdict in held if _may_see(fault, verdict.metric)}
    if not watching:
        kind = " or ".join(fault.metrics or ("accuracy",))
        return outcome(False, f"no limit on {kind} that holds, so nothing would see it")
    try:
        run = FaultyRun(gate, name, fault, progress(fault.name))
    except LookupError as error:  # planted here, not in the run, which would take it for a failure of the model
        return outcome(None, str(error.args[0]))
    blessed = gate.blessed.models.get(name, {})
    result = run.judged(run.open_inputs, blessed=blessed, timing=fault.metrics == ("speedup",))
    now = [verdict for verdict in result.verdicts if verdict.name in watching]
    seen = [verdict for verdict in now if not verdict.accepted(gate.config.qgate.on_inconclusive)]
    unmeasured = [verdict for verdict in seen if verdict.metric == "speedup" and verdict.status == "inconclusive"]
    if unmeasured:  # a busy machine would have said so without a fault
        return outcome(False, f"it was not shown, run it again where nothing else runs: {unmeasured[0].message}")
    if seen:
        return outcome(True, f"{seen[0].name} {seen[0].status}: {seen[0].message}")
    return outcome(False, f"every limit holds: {', '.join(verdict.name for verdict in now)}")


def _may_see(fault: Fault, metric: str) -> bool:
    return metric in fault.metrics if fault.metrics else metric not in ("speedup", "size_reduction")


class FaultyRun(Run):
    """A run of an artifact that is there already, with one fault planted."""

    def __init__(self, gate: Gate, name: str, fault: Fault, progress: Progress) -> None:
        super().__init__(gate.config, gate.config.models[name], gate.registry, gate.environment, progress)
        self._fault = fault
        self._open = partial(gate.inputs, name)
        sound = gate.config.qgate.artifacts / f"{name}.pt"
        self._faulty = sound.with_stem(f"{name}-{fault.name}")
        self._written = write_artifact(self._faulty, edited_bytes(sound, fault.edit or (lambda _tensors: None)))

    def open_inputs(self) -> Inputs:
        """Give the gate's inputs, or what the fault makes of them."""
        inputs = self._open()
        return self._fault.inputs(inputs) if self._fault.inputs else inputs

    def _produce(self, case: Case) -> Artifact:  # noqa: ARG002  # the run's
        return self._written

    def _untrained(self, case: Case) -> None:
        """Leave it out: it has no fault."""

    def _advise(self, case: Case) -> None:
        """Leave it out: what to do about a planted fault is known."""

    def _load_int8(self, path: Path) -> torch.nn.Module:  # noqa: ARG002  # the run's
        int8 = super()._load_int8(self._faulty)
        return self._fault.wrap(int8) if self._fault.wrap else int8

    def _evaluate(
        self, inputs: Inputs, arms: Arms, fingerprints: list[str], recordings: Mapping[str, Recording]
    ) -> None:
        if self._fault.metrics != ("speedup",):
            super()._evaluate(inputs, arms, fingerprints, recordings)

    def _new_metrics(self, arm: str, class_names: tuple[str, ...]) -> dict[str, Metric]:
        metrics = super()._new_metrics(arm, class_names)
        if arm == "int8" and self._fault.damage:
            for metric in metrics.values():
                metric.update = _damaged(metric.update, self._fault.damage)  # type: ignore[method-assign]
        return metrics


def _damaged(update: Callable[..., None], damage: Callable[[Any], Any]) -> Callable[..., None]:
    def updated(sample_id: str, prediction: Any, target: Any) -> None:
        update(sample_id, damage(prediction), target)

    return updated


def _faults(gate: Gate, name: str, control: ModelResult) -> Iterator[Fault]:
    yield Fault(
        "scale",
        f"the scales of the first int8 weights are {_SCALE_FACTOR:g} times too great",
        edit=_corrupt_scale,
    )
    yield Fault("channels", "two channels of the first int8 layer are swapped", edit=_swap_channels)
    yield _dropped_class(gate, name, control)
    times = _slowdown(gate, name, control)
    yield Fault("slow", f"int8 takes {times} times as long", wrap=partial(Repeated, times=times), metrics=("speedup",))
    yield Fault(
        "no data",
        "the evaluation set is empty",
        inputs=lambda inputs: replace(inputs, evaluation=FactoryDataset([], "nothing")),
    )


def _corrupt_scale(tensors: Tensors) -> None:
    """Corrupt the first weight's scale: all depends on it. An activation's may be overruled by lowering."""
    name = _first(key for key in tensors if key.endswith(".weight_scale"))
    tensors[name] *= _SCALE_FACTOR


def _swap_channels(tensors: Tensors) -> None:
    """Swap the two output channels of the first int8 weight that differ most, with all that belongs to them."""
    name = _first(key for key, value in tensors.items() if value.dtype == torch.int8 and len(value) > 1)
    real = tensors[name].flatten(1).float()
    distance = torch.cdist(real, real)
    one, other = divmod(int(distance.argmax()), len(real))
    prefix = name.removesuffix("weight")
    for key, value in tensors.items():
        if key.startswith(prefix) and value.dim() and len(value) == len(real):
            value[[one, other]] = value[[other, one]]


def _first(names: Iterator[str]) -> str:
    name = next(names, None)
    if name is None:
        raise LookupError("the model has no int8 weights of a module")
    return name


def _dropped_class(gate: Gate, name: str, control: ModelResult) -> Fault:
    """Drop the class with the most targets among those that float32 finds."""
    classes = {
        value: item["support"]
        for figures in control.metrics.values()
        for value, item in figures.get("slices", {}).get("class", {}).items()
        if item["baseline"] > _MIN_BASELINE
    }
    if not classes:
        return Fault("class", "a class is never predicted", reason="no metric of this gate has slices by class")
    chosen = max(classes, key=lambda value: classes[value])
    inputs = gate.inputs(name)
    damage = partial(gate.registry.drop_class, class_index=inputs.loaded.class_names.index(chosen))
    fault = Fault("class", f"class {chosen} is never predicted", damage=damage)
    if damage(_prediction(inputs)) is not None:
        return fault
    return replace(fault, reason="no plugin can drop a class from such a prediction (hook qgate_drop_class)")


def _prediction(inputs: Inputs) -> Any:
    """Predict one sample in float32."""
    loaded, sample = inputs.loaded, read_sample(inputs.evaluation, 0)
    batch, context = loaded.preprocess(sample.input)
    with torch.inference_mode():
        output = run_arm("float32", loaded.module, batch, sample)
    return postprocess(loaded, "float32", output, context, sample)


def _slowdown(gate: Gate, name: str, control: ModelResult) -> int:
    """Give how often int8 must run to be half as fast as its limit demands; twice where there is no limit."""
    speedup = control.metrics.get("speedup", {}).get("value")
    thresholds = gate.config.models[name].thresholds.get("speedup")
    floor = thresholds.limits.get("lower_bound") if thresholds else None
    return max(2, math.ceil(2 * speedup / floor)) if speedup and floor and floor > 0 else 2


class Repeated(torch.nn.Module):
    """Runs a module several times and gives its last output."""

    def __init__(self, module: torch.nn.Module, times: int) -> None:
        super().__init__()
        self.module = module
        self.times = times

    def forward(self, *inputs: torch.Tensor) -> Any:
        """Run the module on copies of its inputs, which it may change in place."""
        for _ in range(self.times - 1):
            self.module(*(value.clone() for value in inputs))
        return self.module(*inputs)
