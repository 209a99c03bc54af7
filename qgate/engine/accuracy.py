"""What costs int8 its accuracy: the noise of each layer, and what keeping the worst ones float would change."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from qgate.engine.explain import last_artifact
from qgate.engine.heldout import HeldOutMetrics, hold_out
from qgate.engine.noise import by_own_noise
from qgate.engine.overlap import fingerprints
from qgate.engine.probe import Probe, spread
from qgate.engine.quantize import choose_calibration
from qgate.engine.state import torch_state
from qgate.engine.variants import Variants
from qgate.errors import DataError
from qgate.quantization.sensitivity import LayerNoise, layer_noise

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

    from qgate.config.model import ModelConfig
    from qgate.engine.gate import Gate
    from qgate.engine.load import Inputs
    from qgate.engine.progress import Progress
    from qgate.quantization.layers import Inputs as Batch

__all__ = ["AccuracyExplanation", "Worth", "explain_accuracy"]

_SUSPECTS = 3


@dataclass(frozen=True)
class Worth:
    """What metrics say on held-out samples: float32's values, int8's, and int8's with one layer kept float, by layer.

    `measured_on` says what the samples are; `reason` why nothing was measured, "" where something was.
    """

    measured_on: str = ""
    float32: dict[str, float] = field(default_factory=dict)
    int8: dict[str, float] = field(default_factory=dict)
    kept_float: dict[str, dict[str, float]] = field(default_factory=dict)
    reason: str = ""


@dataclass(frozen=True)
class AccuracyExplanation:
    """What `qgate explain --accuracy` shows of one model.

    `anew` says why the artifact of the last run was not the one that was measured, "" where it was. `noise` is that on
    the raw outputs, as a share of their power, over `num_samples` calibration samples.
    """

    backend: str
    anew: str
    num_samples: int
    noise: float
    layers: tuple[LayerNoise, ...]
    worth: Worth


def explain_accuracy(gate: Gate, name: str, progress: Progress) -> AccuracyExplanation:
    """Measure the noise of one model's layers, in the artifact of the last run or, where that is none, in a new one.

    Raises `QGateError`.
    """
    model, settings = gate.config.models[name], gate.config.qgate
    with torch_state(seed=settings.seed, num_threads=settings.num_threads):
        inputs = gate.inputs(name)
        chosen = choose_calibration(model, gate.registry, inputs, settings.seed)
        with last_artifact(gate, model, inputs.loaded, progress) as (path, anew):
            variants = Variants.of(inputs.loaded, path, gate.registry)
        probe = Probe.of(inputs, spread(chosen))
        progress.start("noise", len(probe.batches))
        layers = layer_noise(variants.floats, variants.reference, _counted(probe.batches, progress.advance))
        progress.finish()
        suspects = _suspects(layers, variants.layers)
        worth = _worth(lambda: open_trials(gate, model, inputs, chosen), variants, suspects, progress)
    noise = probe.noise(variants.reference)
    return AccuracyExplanation(variants.backend.name, anew, len(probe.batches), noise, tuple(layers), worth)


def _suspects(layers: Iterable[LayerNoise], quantized: Collection[str]) -> list[str]:
    return [layer.layer for layer in by_own_noise(layers) if layer.layer in quantized][:_SUSPECTS]


def _counted(batches: Iterable[Batch], advance: Callable[[], None]) -> Iterator[Batch]:
    for batch in batches:
        yield batch
        advance()


def open_trials(gate: Gate, model: ModelConfig, inputs: Inputs, chosen: Sequence[int]) -> HeldOutMetrics:
    """Hold samples out that neither calibrated a model nor judge it. Raises `DataError` where that measures nothing."""
    judged = fingerprints(inputs.evaluation, range(len(inputs.evaluation)))
    held_out = hold_out(inputs.calibration, chosen, judged, gate.config.qgate.seed)
    trials = HeldOutMetrics(inputs.loaded, held_out, model.thresholds, gate.registry, gate.config.qgate)
    if not trials.tables:
        raise DataError(f"no limit names a metric that can be measured on {held_out}")
    return trials


def _worth(
    open_: Callable[[], HeldOutMetrics], variants: Variants, suspects: Sequence[str], progress: Progress
) -> Worth:
    try:
        trials = open_()
    except DataError as error:
        return Worth(reason=error.message)
    progress.start("kept float", (1 + len(suspects)) * len(trials.held_out.samples))
    figures = {kept: trials.figures(variants.lowered(kept), progress) for kept in [(), *((name,) for name in suspects)]}
    progress.finish()
    values = {kept: {name: item["candidate"] for name, item in found.items()} for kept, found in figures.items()}
    float32 = {name: item["baseline"] for name, item in figures[()].items()}
    return Worth(str(trials.held_out), float32, values.pop(()), {kept[0]: found for kept, found in values.items()})
