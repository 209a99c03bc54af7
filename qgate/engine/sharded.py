"""Work on samples by an executor's workers, with the results that this process would have had.

Samples are dealt into shards, whose size no number of workers changes, and what comes back is taken in by the data
set's order.
"""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from qgate.config.recipe import plain_recipe
from qgate.engine.calibrate import calibrate
from qgate.engine.evaluate import compares_with_float32, is_mergeable, predict, read_sample, update_metric
from qgate.engine.overlap import fingerprints
from qgate.engine.storable import dataclasses_in
from qgate.engine.wire import error_of, from_bytes, to_bytes
from qgate.errors import ExecutorError, PluginError
from qgate.quantization.ranges import needing_values, take_statistics

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from qgate.config.model import GateConfig, ModelConfig, QuantizationConfig
    from qgate.engine.cache import Key
    from qgate.engine.load import Inputs
    from qgate.engine.progress import Progress
    from qgate.protocols import Dataset, Executor, LoadedModel, Metric

__all__ = ["Workers"]

_SHARD = 32  # samples: what a worker that dies costs, and some seconds of a detector's work
_CALIBRATION = 4  # samples: their statistics are megabytes

Task = dict[str, Any]


class Workers:
    """An executor's workers, for one model of a gate.

    `plugins` are the folders whose `conftest.py` are plugins.
    """

    def __init__(self, executor: Executor, config: GateConfig, model: ModelConfig, plugins: Iterable[Path]) -> None:
        self._executor = executor
        self._config = config
        self._model = model
        self._plugins = [str(folder) for folder in plugins]
        self._conditions: Key = {}
        self._seen: dict[tuple[str, int], None] = {}
        self._notes: dict[str, None] = {}

    def notes(self) -> list[str]:
        """Say who has worked so far, and what this process had to do itself."""
        hosts = sorted({host for host, _ in self._seen})
        worked = f"{len(self._seen)} processes on {', '.join(hosts)} worked" if hosts else "nobody worked"
        return [f'executor "{self._executor.name}": {worked}', *self._notes]

    def note(self, note: str) -> None:
        """Add to what is said of a run, once."""
        self._notes[note] = None

    def start(self, conditions: Key, num_samples: int) -> None:
        """Say what workers must have in common with this process, before they are given work."""
        self._conditions = {**conditions, "samples": num_samples}

    def hashes(self, inputs: Inputs) -> list[str]:
        """Give the fingerprints of the evaluation samples. Raises `DataError`, `ExecutorError`.

        This process hashes one sample of each shard too: who hashes a shard may be who evaluates it.
        """
        found: list[str] = []
        for read, host in self._results(_shards("hash", len(inputs.evaluation))):
            first = len(found)
            _check_read(inputs.evaluation, [first], read[:1], fingerprints(inputs.evaluation, [first]), host)
            found += read
        return found

    def evaluate(
        self,
        inputs: Inputs,
        judged: Sequence[str],
        arms: Mapping[str, Sequence[Path]],
        metrics: Mapping[str, Mapping[str, Metric]],
        progress: Progress,
    ) -> list[str]:
        """Update `metrics[arm][name]` as `engine.evaluate.evaluate` does, and give the digests of the targets.

        `judged` are the fingerprints of the samples. `arms` has the files of all but float32: of each, its artifact,
        and then what is beside that.
        """
        targets: list[str] = []
        others = {name for name, metric in metrics["int8"].items() if not is_mergeable(metric)}
        classes = Classes(inputs, sorted(others))
        tasks = _shards("evaluate", len(inputs.evaluation), metrics=list(metrics["int8"]))
        for found, host in self._results(tasks, arms, classes):
            shard = range(len(targets), len(targets) + len(found["targets"]))
            _check_read(inputs.evaluation, shard, found["read"], judged[shard.start : shard.stop], host)
            for arm, summaries in found["summaries"].items():
                for name, summary in summaries.items():
                    metrics[arm][name].merge(summary)  # type: ignore[attr-defined]  # mergeable, or there were none
            _update_from(found["kept"], {arm: [metrics[arm][name] for name in sorted(others)] for arm in metrics})
            targets += found["targets"]
            progress.advance(len(found["targets"]))
        return targets

    def calibrator(self, recipe: QuantizationConfig) -> Callable[..., None]:
        """Give what does for a graph of this recipe as `engine.calibrate.calibrate` does."""
        return partial(self._calibrate, recipe)

    def _calibrate(  # noqa: PLR0913, PLR0917  # the recipe, and what `calibrate` takes
        self,
        recipe: QuantizationConfig,
        observed: torch.fx.GraphModule,
        loaded: LoadedModel,
        dataset: Dataset,
        chosen: Sequence[int],
        progress: Progress,
    ) -> None:
        others = needing_values(observed)
        if others:
            said = ", ".join(f'"{name}"' for name in others)
            self.note(f"calibrated in this process: observer {said} must see the values themselves")
            calibrate(observed, loaded, dataset, chosen, progress)
            return
        shards = [list(chosen[begin : begin + _CALIBRATION]) for begin in range(0, len(chosen), _CALIBRATION)]
        tasks = ({"do": "calibrate", "recipe": plain_recipe(recipe), "indices": shard} for shard in shards)
        for shard, (found, host) in zip(shards, self._results(tasks), strict=True):
            _check_read(dataset, shard, found["read"], fingerprints(dataset, shard), host)
            for statistics in found["statistics"]:
                take_statistics(observed, statistics)
                progress.advance()

    def tried(self, recipes: Iterable[tuple[QuantizationConfig, bool]], max_seconds: float) -> Iterator[dict[str, Any]]:
        """Give what becomes of recipes: a trial without its speed, and the artifact where that is asked for."""
        tasks = (
            {"do": "try", "recipe": plain_recipe(recipe), "max_seconds": max_seconds, "artifact": wanted}
            for recipe, wanted in recipes
        )
        return (found for found, _ in self._results(tasks))

    def _results(
        self,
        tasks: Iterable[Task],
        arms: Mapping[str, Sequence[Path]] | None = None,
        classes: Classes | None = None,
    ) -> Iterator[tuple[Any, str]]:
        """Give what workers find and on what host, by the order of tasks. Raises what they raise, `ExecutorError`."""
        files = {arm: [(path.name, path.read_bytes()) for path in paths] for arm, paths in (arms or {}).items()}
        job = to_bytes({"gate": self._described(), "arms": files})
        num_threads = self._config.qgate.num_threads
        for content in self._executor.map(job, map(to_bytes, tasks), num_threads):
            result = classes.decoded(content) if classes else from_bytes(content)
            if "error" in result:
                raise error_of(*result["error"])
            host, process = result["worker"]
            self._seen[host, process] = None
            yield result["value"], host

    def _described(self) -> str:
        described = {
            "config": self._config.text,
            "path": str(self._config.path),
            "plugins": self._plugins,
            "model": self._model.name,
            "conditions": self._conditions,
        }
        return json.dumps(described, sort_keys=True)


def _shards(do: str, num_samples: int, **others: Any) -> Iterator[Task]:
    for begin in range(0, num_samples, _SHARD):
        yield {"do": do, "begin": begin, "end": min(begin + _SHARD, num_samples), **others}


def _check_read(
    dataset: Dataset, indices: Sequence[int], read: Sequence[str], expected: Sequence[str], host: str
) -> None:
    """Raise `ExecutorError` where a worker has read another sample than the one that is meant, by fingerprints."""
    for index, found, known in zip(indices, read, expected, strict=True):
        if found != known:
            raise ExecutorError(
                f'the worker on {host} read another content of sample "{dataset.sample_id(index)}" than was hashed for '
                "this run; give all machines the same data, and change none during a run"
            )


class Classes:
    """The dataclasses that workers' predictions and targets may be made of: those of this process's own.

    Samples are predicted here, one after another, until all that a worker names is known. `metrics` want predictions.
    """

    def __init__(self, inputs: Inputs, metrics: Sequence[str]) -> None:
        self._inputs = inputs
        self._metrics = metrics
        self._ahead = iter(range(len(inputs.evaluation)))
        self._known: dict[str, type] = {}

    def decoded(self, content: bytes) -> Any:
        """Decode what a worker sent. Raises `PluginError` where it is made of what is not known."""
        try:
            return from_bytes(content, self._known)
        except KeyError as error:
            self._find(error.args[0])
        return self.decoded(content)

    def _find(self, name: str) -> None:
        for index in self._ahead:
            self._known |= self._classes_of(index)
            if name in self._known:
                return
        said = " and ".join(f'"{metric}"' for metric in self._metrics)
        raise PluginError(
            f"a worker's prediction or target holds the dataclass {name}, which no target and no prediction of float32 "
            f"does here; give the metric {said} `summary` and `merge`, so that predictions stay where they are made"
        )

    def _classes_of(self, index: int) -> dict[str, type]:
        sample, loaded = read_sample(self._inputs.evaluation, index), self._inputs.loaded
        with torch.inference_mode():
            predictions = predict(loaded, {"float32": loaded.module}, sample)
        return dataclasses_in([predictions["float32"], sample.target])


def _update_from(kept: dict[str, list[Any]], metrics: Mapping[str, Iterable[Metric]]) -> None:
    """Update metrics with predictions and targets as they came."""
    for arm, samples in kept.items():
        for float32, (sample_id, prediction, target) in zip(kept["float32"], samples, strict=True):
            for metric in metrics[arm]:
                compared = float32[1] if compares_with_float32(metric) else target
                update_metric(metric, sample_id, prediction, compared, arm)
