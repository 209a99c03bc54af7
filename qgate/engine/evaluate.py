"""Both arms over the evaluation data, in one pass."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import torch

from qgate.errors import ModelError, QGateError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from qgate.engine.progress import Progress
    from qgate.protocols import Dataset, LoadedModel, Metric, Sample

__all__ = ["Arms", "evaluate"]

Arms = dict[str, torch.nn.Module]


def evaluate(
    loaded: LoadedModel,
    arms: Arms,
    dataset: Dataset,
    metrics: Mapping[str, Mapping[str, Metric]],
    progress: Progress,
) -> None:
    """Update `metrics[arm][name]` with every arm's predictions, sample by sample in the data set's order.

    A sample is read and preprocessed once for all arms. Samples are worked on by as many threads as there are cores,
    each with the thread count that torch has now, so that reading, forward passes and postprocessing overlap.
    """
    for sample, predictions in _predictions(loaded, arms, dataset):
        for arm, prediction in predictions.items():
            for metric in metrics[arm].values():
                metric.update(sample.id, prediction, sample.target)
        progress.advance()


def _predictions(loaded: LoadedModel, arms: Arms, dataset: Dataset) -> Iterator[tuple[Sample, dict[str, Any]]]:
    threads = torch.get_num_threads()

    def predict(index: int) -> tuple[Sample, dict[str, Any]]:
        sample = dataset.sample(index)
        with torch.inference_mode():
            return sample, _predict(loaded, arms, sample)

    workers = max(1, len(os.sched_getaffinity(0)) // threads)
    # The thread count is a setting of each thread in OpenMP, so each worker sets its own.
    with ThreadPoolExecutor(workers, "qgate", torch.set_num_threads, (threads,)) as pool:
        try:
            yield from pool.map(predict, range(len(dataset)))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _predict(loaded: LoadedModel, arms: Arms, sample: Sample) -> dict[str, Any]:
    try:
        inputs, context = loaded.preprocess(sample.input)
        return {arm: loaded.postprocess(module(*inputs), context) for arm, module in arms.items()}
    except QGateError:
        raise
    except Exception as error:
        raise ModelError(f'sample "{sample.id}" cannot be run: {type(error).__name__}: {error}') from error
