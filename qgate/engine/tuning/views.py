"""How far int8's raw outputs are from float32's, on each held-out sample and on other views of it.

A rounding moves what comes after it by chance, so that one recipe is nearer on one sample and another on the next,
though one of them is better. Labels are not asked for, so any view of a sample says as much as the sample does.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from qgate.engine.distance import output_distances
from qgate.engine.evaluate import naming, read_sample
from qgate.engine.training.data import augmented_batch

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch
    from numpy.typing import NDArray

    from qgate.protocols import Dataset, LoadedModel, Sample

__all__ = ["mean_distances"]

_OTHERS = 4  # views beside the sample itself; each costs every recipe a pass of both arms


def mean_distances(
    loaded: LoadedModel, int8: torch.nn.Module, samples: Dataset, loss: Callable[[Any, Any], torch.Tensor], options: Any
) -> NDArray[np.float64]:
    """Give the mean loss of int8's raw outputs over all views of each sample, float32's being the target.

    The views are the sample as it is and, where the loader has an `augment`, others that it makes with `options`: the
    same ones for every recipe. Raises what `output_distances` raises.
    """
    views = _Views(loaded, samples, options, 1 + (_OTHERS if loaded.augment else 0))
    prepared = replace(loaded, preprocess=lambda inputs: (inputs, None))
    distances = output_distances(prepared, int8, cast("Dataset", views), loss)
    means: NDArray[np.float64] = np.reshape(distances, (views.count, len(samples))).mean(0)
    return means


@dataclass(frozen=True)
class _Views:
    """All samples as they are, then all once more as `augment` makes them, and so on; inputs are preprocessed."""

    loaded: LoadedModel
    samples: Dataset
    options: Any
    count: int

    def __len__(self) -> int:
        return self.count * len(self.samples)

    def sample(self, index: int) -> Sample:
        """Read one sample, and make a view of it. Raises `DataError`, `ModelError`."""
        view, place = divmod(index, len(self.samples))
        sample = read_sample(self.samples, place)
        if view:
            rng = np.random.default_rng([view, place])
            return replace(sample, input=augmented_batch(self.loaded, [sample], rng, self.options).inputs)
        with naming("preprocess", sample):
            return replace(sample, input=self.loaded.preprocess(sample.input)[0])
