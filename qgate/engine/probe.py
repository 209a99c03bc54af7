"""A few calibration samples on which int8 graphs are held against float32, whatever their outputs mean."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from qgate.engine.evaluate import naming, read_sample, run_arm
from qgate.engine.tensors import tensors_of
from qgate.quantization.prepare import quiet_torch_ao
from qgate.quantization.sensitivity import Power

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qgate.engine.load import Inputs
    from qgate.protocols import LoadedModel, Sample
    from qgate.quantization.layers import Inputs as Batch

__all__ = ["NUM_SAMPLES", "Probe", "spread"]

NUM_SAMPLES = 8


def spread(chosen: Sequence[int], count: int = NUM_SAMPLES) -> list[int]:
    """Give so many of the chosen samples, or all of fewer, from all parts of the list."""
    return list(chosen[:: max(1, len(chosen) // count)][:count])


@dataclass(frozen=True)
class Probe:
    """Preprocessed samples, and the tensors of float32's raw output for each."""

    batches: tuple[Batch, ...]
    outputs: tuple[tuple[torch.Tensor, ...], ...]

    @classmethod
    def of(cls, inputs: Inputs, indices: Sequence[int]) -> Probe:
        """Read some calibration samples and run float32 on them. Raises `DataError`, `ModelError`."""
        samples = [read_sample(inputs.calibration, index) for index in indices]
        batches = tuple(_preprocessed(inputs.loaded, sample) for sample in samples)
        with torch.inference_mode():
            outputs = tuple(
                tuple(tensors_of(run_arm("float32", inputs.loaded.module, batch, sample)))
                for batch, sample in zip(batches, samples, strict=True)
            )
        return cls(batches, outputs)

    def noise(self, graph: torch.nn.Module) -> float:
        """Give the power of the noise on a graph's raw outputs as a share of the signal's, inf where it is not finite.

        Each tensor of an output counts alike, and each of its channels.
        """
        powers = [Power() for _ in self.outputs[0]]
        with torch.inference_mode(), quiet_torch_ao():
            for batch, reals in zip(self.batches, self.outputs, strict=True):
                founds = tensors_of(graph(*(value.clone() for value in batch)))
                for power, real, found in zip(powers, reals, founds, strict=False):
                    if real.is_floating_point():
                        power.add(real, found)
        shares = [power.share for power in powers if power.is_known]
        return sum(shares) / len(shares) if shares else 0.0


def _preprocessed(loaded: LoadedModel, sample: Sample) -> Batch:
    with naming("preprocess", sample):
        return loaded.preprocess(sample.input)[0]
