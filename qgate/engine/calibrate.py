"""Showing calibration data to the observers."""

from __future__ import annotations

import itertools
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from qgate.engine.evaluate import brief, read_sample
from qgate.errors import DataError, ModelError, QGateError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from qgate.engine.progress import Progress
    from qgate.protocols import Calibrator, Dataset, LoadedModel

__all__ = ["calibrate", "preprocessed", "select_samples"]

_AHEAD = 4


def select_samples(calibrator: Calibrator, dataset: Dataset, num_samples: int, seed: int) -> list[int]:
    """Choose the calibration samples. Raises `DataError` where there are none."""
    chosen = calibrator.select(dataset, num_samples, np.random.default_rng(seed))
    if not chosen:
        raise DataError(
            f'calibrator "{calibrator.name}" chose no sample of {len(dataset)}; there is nothing to calibrate on'
        )
    return chosen


def calibrate(
    observed: torch.nn.Module, loaded: LoadedModel, dataset: Dataset, chosen: Sequence[int], progress: Progress
) -> None:
    """Run the chosen samples through the observed module, one after another; a second thread reads ahead."""
    with torch.no_grad():
        for index, inputs in zip(chosen, preprocessed(loaded, dataset, chosen), strict=True):
            try:
                observed(*(value.clone() for value in inputs))  # in place, a model would change the data set itself
            except Exception as error:
                raise ModelError(f"the model failed at calibration sample {index}: {brief(error)}") from error
            progress.advance()


def preprocessed(loaded: LoadedModel, dataset: Dataset, chosen: Sequence[int]) -> Iterator[Any]:
    """Give the module's inputs for the chosen samples, one after another; a second thread reads ahead."""

    def read(index: int) -> Any:
        sample = read_sample(dataset, index)
        try:
            return loaded.preprocess(sample.input)[0]
        except QGateError:
            raise
        except Exception as error:
            raise ModelError(f'preprocess failed at sample "{sample.id}": {brief(error)}') from error

    indices = iter(chosen)
    with ThreadPoolExecutor(1, "qgate-read", torch.set_num_threads, (1,)) as pool:
        ahead = deque(pool.submit(read, index) for index in itertools.islice(indices, _AHEAD))
        while ahead:
            yield ahead.popleft().result()
            ahead.extend(pool.submit(read, index) for index in itertools.islice(indices, 1))
