"""An int8 model that has nothing to do with float32 any more is found in a second, on a few calibration samples."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any

import torch

from qgate.engine.artifact import load_reference
from qgate.engine.blame import blame
from qgate.engine.evaluate import naming, postprocess, read_sample, run_arm
from qgate.engine.tensors import tensors_of
from qgate.errors import CollapseError
from qgate.quantization.layers import signal_to_noise

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from qgate.engine.evaluate import Modules
    from qgate.engine.load import Inputs
    from qgate.plugins import Registry
    from qgate.protocols import LoadedModel, Sample

__all__ = ["check_collapse"]

_NUM_SAMPLES = 8
# Float32 must find something in so many samples before finding nothing says anything: one prediction may miss a limit.
_MIN_PREDICTED = 3
# An output says something from sample to sample where the power of its deviations from their mean is above this share
# of its own. Then noise pushes the correlation below the limit only where it is above 5% of the power: 13 dB. The
# worst healthy models (weights per tensor, min-max observers, reduced range, calibrated on 8 samples) of the examples
# keep 18 and 27 dB, and correlations of 0.84 and 0.995; a dead layer in the trunk leaves 0.0 to 0.4.
_MIN_VARIATION = 0.01
_MIN_CORRELATION = 0.4
# Dead outputs keep up to 15 dB by the bias that both arms have; without one, they keep none.
_MIN_SNR = 1.0
_MAX_VALUES = 2**16  # of an output; they are drawn


def check_collapse(inputs: Inputs, chosen: Sequence[int], arms: Modules, artifact: Path, registry: Registry) -> None:
    """Run a few of the chosen calibration samples through both arms, `float32` and `int8`.

    Raises `CollapseError`, which names the layer that is first to go wrong, where int8 holds NaN, gives values that are
    not finite, predicts nothing where float32 does, gives the same for every sample where float32 does not, or gives
    what bears no relation to float32's output.
    """
    loaded = inputs.loaded
    if _holds_nan(load_reference(artifact)) and not _holds_nan(loaded.module):
        # The kernels turn NaN into numbers, and outputs into what looks like some.
        blamed = blame(loaded.module, loaded.example_inputs, None, artifact, registry)
        raise CollapseError(f"the int8 model has collapsed: its artifact holds NaN; {blamed}")
    indices = list(chosen[:: max(1, len(chosen) // _NUM_SAMPLES)][:_NUM_SAMPLES])
    with torch.inference_mode():
        trials = [_Trial.run(inputs, index, arms) for index in indices]
        trial, symptom = _symptom(trials, loaded)
    if symptom:
        blamed = blame(loaded.module, trial.inputs, trial.int8, artifact, registry)
        raise CollapseError(f"the int8 model has collapsed: {symptom}; {blamed}")


def _holds_nan(module: torch.nn.Module) -> bool:
    return any(bool(value.isnan().any()) for value in chain(module.parameters(), module.buffers()))


@dataclass(frozen=True)
class _Trial:
    """One sample and what the arms make of it."""

    sample: Sample
    inputs: tuple[torch.Tensor, ...]
    context: Any
    float32: Any
    int8: Any

    @classmethod
    def run(cls, inputs: Inputs, index: int, arms: Modules) -> _Trial:
        sample = read_sample(inputs.calibration, index)
        with naming("preprocess", sample):
            batch, context = inputs.loaded.preprocess(sample.input)
        outputs = {arm: run_arm(arm, arms[arm], batch, sample) for arm in ("float32", "int8")}
        return cls(sample, batch, context, **outputs)

    def pairs(self) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Give the tensors of real numbers of both outputs, side by side."""
        pairs = zip(tensors_of(self.float32), tensors_of(self.int8), strict=False)
        return [pair for pair in pairs if all(value.is_floating_point() for value in pair)]


def _symptom(trials: Sequence[_Trial], loaded: LoadedModel) -> tuple[_Trial, str]:
    """Say what is wrong with int8, "" where nothing is, and give a trial that shows it."""
    for trial in trials:
        if any(_is_lost(real, found) for real, found in trial.pairs()):
            place = f'calibration sample "{trial.sample.id}"'
            return trial, f"its output has NaN or infinite values at {place}, where float32's has none"
    return trials[0], _missing_predictions(trials, loaded) or _unrelated_output(trials)


def _is_lost(real: torch.Tensor, found: torch.Tensor) -> bool:
    """Say whether int8 gives values that are not finite where float32's are."""
    lost = ~torch.isfinite(found)
    if real.shape == found.shape:
        lost &= torch.isfinite(real)
    return bool(lost.any()) and bool(torch.isfinite(real).any())


def _missing_predictions(trials: Sequence[_Trial], loaded: LoadedModel) -> str:
    found = {
        arm: [postprocess(loaded, arm, getattr(trial, arm), trial.context, trial.sample) for trial in trials]
        for arm in ("float32", "int8")
    }
    if not all(hasattr(prediction, "__len__") for predictions in found.values() for prediction in predictions):
        return ""
    float32, int8 = (sum(len(prediction) > 0 for prediction in found[arm]) for arm in ("float32", "int8"))
    if int8 or float32 < min(_MIN_PREDICTED, len(trials)):
        return ""
    return f"it predicts nothing in {_samples(trials)}, float32 something in {float32} of them"


def _unrelated_output(trials: Sequence[_Trial]) -> str:
    columns = list(zip(*(trial.pairs() for trial in trials), strict=False))
    for number, column in enumerate(columns, start=1):
        said = _relation(*zip(*column, strict=True))
        if said:
            which = f"output {number} of {len(columns)}" if len(columns) > 1 else "its output"
            return f"{which} {said} over {_samples(trials)}"
    return ""


def _relation(reals: Sequence[torch.Tensor], founds: Sequence[torch.Tensor]) -> str:
    """Say what is wrong with one output of int8 over all samples; "" where nothing is, or where shapes differ."""
    if len({value.shape for value in (*reals, *founds)}) > 1 or not reals[0].numel():
        return ""
    real, found = _drawn(reals), _drawn(founds)
    known = torch.isfinite(real)  # where float32 is infinite, a mask, say, int8 may be what it likes
    real, found = real.where(known, 0), found.where(known, 0)
    varying, following = real - real.mean(0), found - found.mean(0)
    varies = float(varying.square().sum()) > _MIN_VARIATION * float(real.square().sum())
    if varies and bool((found == found[0]).all()):
        return "is the same for every sample, where float32's varies,"
    snr, correlation = signal_to_noise(real, found), _correlation(varying, following)
    if snr < _MIN_SNR or (varies and correlation < _MIN_CORRELATION):
        return f"bears no relation to float32's (signal-to-noise ratio {snr:.1f} dB, correlation {correlation:.2f})"
    return ""


def _drawn(values: Sequence[torch.Tensor]) -> torch.Tensor:
    """Give some values of each tensor at the same places of all, shape (tensors, values)."""
    size = values[0].numel()
    places = torch.arange(size)
    if size > _MAX_VALUES:
        places = torch.randint(size, (_MAX_VALUES,), generator=torch.Generator().manual_seed(0))
    return torch.stack([value.flatten()[places] for value in values]).double()


def _correlation(left: torch.Tensor, right: torch.Tensor) -> float:
    norms = float(left.norm() * right.norm())
    return float((left * right).sum()) / norms if norms else 0.0


def _samples(trials: Sequence[_Trial]) -> str:
    return "1 calibration sample" if len(trials) == 1 else f"{len(trials)} calibration samples"
