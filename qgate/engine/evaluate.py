"""Both arms over the evaluation data, in one pass."""

from __future__ import annotations

import contextlib
import os
import traceback
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import torch

from qgate.engine.digest import digest
from qgate.engine.tensors import tensors_of
from qgate.errors import DataError, ModelError, PluginError, QGateError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from qgate.engine.progress import Progress
    from qgate.protocols import Dataset, LoadedModel, Metric, Sample

__all__ = [
    "Arms",
    "Modules",
    "PairWatcher",
    "Watcher",
    "brief",
    "compares_with_float32",
    "cores",
    "evaluate",
    "is_mergeable",
    "naming",
    "postprocess",
    "predict",
    "read_sample",
    "run_arm",
    "update_metric",
]

Modules = Mapping[str, torch.nn.Module]
# An arm is a module, or its predictions of all samples, where they are known.
Arms = Mapping[str, "torch.nn.Module | Sequence[Any]"]


class Watcher(Protocol):
    """Takes predictions in, as metrics do."""

    name: ClassVar[str]

    def update(self, sample_id: str, prediction: Any, target: Any) -> None:
        """Take one sample in."""
        ...


class PairWatcher(Protocol):
    """Takes both arms' predictions in."""

    def update(self, sample_id: str, float32: Any, int8: Any, target: Any) -> None:
        """Take one sample in."""
        ...


def evaluate(  # noqa: PLR0913  # what is run, on what, who watches, and how many at a time
    loaded: LoadedModel,
    arms: Arms,
    dataset: Dataset,
    metrics: Mapping[str, Mapping[str, Watcher]],
    progress: Progress,
    *,
    of_both: Sequence[PairWatcher] = (),
    num_workers: int | None = None,
) -> list[str]:
    """Update `metrics[arm][name]` with every arm's predictions, sample by sample in the data set's order.

    `of_both` are told of `float32` and `int8` at once. Gives the digest of each sample's target.

    A sample is read and preprocessed once for all arms. Samples are worked on by as many threads as there are cores, or
    `num_workers`, each with the thread count that torch has now, so that reading, forward passes and postprocessing
    overlap.
    """
    targets: list[str] = []
    running = {arm: module for arm, module in arms.items() if isinstance(module, torch.nn.Module)}
    known = {arm: values for arm, values in arms.items() if not isinstance(values, torch.nn.Module)}
    for index, (sample, computed) in enumerate(_predictions(loaded, running, dataset, num_workers)):
        predictions = {**computed, **{arm: values[index] for arm, values in known.items()}}
        for arm, prediction in predictions.items():
            for metric in metrics[arm].values():
                compared = predictions["float32"] if compares_with_float32(metric) else sample.target
                update_metric(metric, sample.id, prediction, compared, arm)
        for watcher in of_both:
            watcher.update(sample.id, predictions["float32"], predictions["int8"], sample.target)
        targets.append(digest(sample.target))
        progress.advance()
    return targets


def _predictions(
    loaded: LoadedModel, arms: Modules, dataset: Dataset, num_workers: int | None
) -> Iterator[tuple[Sample, dict[str, Any]]]:
    threads = torch.get_num_threads()

    def work(index: int) -> tuple[Sample, dict[str, Any]]:
        sample = read_sample(dataset, index)
        with torch.inference_mode():
            return sample, predict(loaded, arms, sample) if arms else {}

    workers = num_workers or max(1, cores() // threads)
    # The thread count is a setting of each thread in OpenMP, so each worker sets its own.
    with ThreadPoolExecutor(workers, "qgate", torch.set_num_threads, (threads,)) as pool:
        try:
            yield from pool.map(work, range(len(dataset)))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def read_sample(dataset: Dataset, index: int) -> Sample:
    """Read one sample. Raises `DataError`, which names it where the data set does not."""
    try:
        return dataset.sample(index)
    except QGateError:
        raise
    except Exception as error:
        raise DataError(f"sample {index} cannot be read: {brief(error)}") from error


def brief(error: Exception) -> str:
    """Say in one line what was raised, and on which line of which file."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    name, said = type(error).__name__, str(error)
    if "Traceback of TorchScript" in said:  # its last line is the message, in 45 lines of torch's own code
        said = said.strip().rpartition("\n")[2].removeprefix(f"{name}: ")
    return f"{name}: {said} ({frame.filename}:{frame.lineno}, in {frame.name})"


def predict(loaded: LoadedModel, arms: Modules, sample: Sample) -> dict[str, Any]:
    """Give each arm's prediction of a sample. Raises `ModelError`, which names arm and sample."""
    with naming("preprocess", sample):
        inputs, context = loaded.preprocess(sample.input)
    predictions = {}
    for arm, module in arms.items():
        output = run_arm(arm, module, inputs, sample)
        if any(value.is_floating_point() and bool(value.isnan().any()) for value in tensors_of(output)):
            raise ModelError(
                f'the {arm} model gave NaN at sample "{sample.id}", which a prediction may hide and nothing can be '
                "compared with; see that the sample's input is finite"
            )
        predictions[arm] = postprocess(loaded, arm, output, context, sample)
    return predictions


def run_arm(arm: str, module: torch.nn.Module, inputs: tuple[torch.Tensor, ...], sample: Sample) -> Any:
    """Give an arm's raw output of a preprocessed sample. Raises `ModelError`, which names arm and sample."""
    with naming(f"the {arm} model", sample):
        return module(*(value.clone() for value in inputs))  # a model may change its inputs in place


def postprocess(loaded: LoadedModel, arm: str, output: Any, context: Any, sample: Sample) -> Any:
    """Turn an arm's raw output into a prediction. Raises `ModelError`, which names arm and sample."""
    with naming(f"postprocess (of the {arm} model's output)", sample):
        return loaded.postprocess(output, context)


@contextlib.contextmanager
def naming(step: str, sample: Sample) -> Iterator[None]:
    """Turn what a loader or a model raises into a `ModelError` that names the step and the sample."""
    try:
        yield
    except QGateError:
        raise
    except Exception as error:
        raise ModelError(f'{step} failed at sample "{sample.id}": {brief(error)}') from error


def compares_with_float32(metric: Watcher | type[Metric]) -> bool:
    """Say whether a metric compares with float32's predictions and needs no targets. Raises `PluginError`."""
    said = getattr(metric, "compares_with", "targets")
    if said not in ("float32", "targets"):
        raise PluginError(f'metric "{metric.name}": compares_with is {said!r}; expected "targets" or "float32"')
    return bool(said == "float32")


def is_mergeable(metric: Metric | type[Metric]) -> bool:
    """Say whether a metric can be taken in a shard at a time (`MergeableMetric`)."""
    return hasattr(metric, "summary") and hasattr(metric, "merge")


def update_metric(metric: Watcher, sample_id: str, prediction: Any, compared: Any, arm: str) -> None:
    """Let a metric take a sample in. Raises `PluginError`, which names metric, sample and arm."""
    try:
        metric.update(sample_id, prediction, compared)
    except QGateError:
        raise
    except Exception as error:
        raise PluginError(f'metric "{metric.name}" failed at sample "{sample_id}" ({arm}): {brief(error)}') from error


def cores() -> int:
    """Count the cores that this process may use, where the system says."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
