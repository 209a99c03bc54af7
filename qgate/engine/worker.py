"""What the workers of an executor do: open the gate that a job describes, and work on tasks of it.

A worker opens everything itself: model and data from what `qgate.toml` says, the int8 arms from the files' bytes.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import tempfile
import weakref
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from qgate.config.recipe import recipe_of
from qgate.engine.calibrate import calibrate
from qgate.engine.evaluate import brief, evaluate, is_mergeable
from qgate.engine.gate import Gate
from qgate.engine.heldout import Part
from qgate.engine.overlap import fingerprints
from qgate.engine.progress import Silent
from qgate.engine.quantize import available_backend, resolve
from qgate.engine.reuse import Reuse
from qgate.engine.shipping import load_shipped
from qgate.engine.state import torch_state
from qgate.engine.storable import dataclasses_in
from qgate.engine.tuning.data import tuning_inputs
from qgate.engine.tuning.trials import Trials, plain_trial
from qgate.engine.wire import from_bytes, said_of, to_bytes
from qgate.errors import ExecutorError, PluginError, QGateError
from qgate.local_plugin import load_local_plugin
from qgate.quantization.float_forms import float_forms
from qgate.quantization.prepare import prepare
from qgate.quantization.ranges import gather_statistics

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import torch

    from qgate.engine.cache import Key
    from qgate.protocols import Dataset
    from qgate.quantization.ranges import Statistics

__all__ = ["perform"]


def perform(job: bytes, task: bytes) -> bytes:
    """Work on one task of a job, both as the engine made them. What goes wrong is in the result, too."""
    try:
        return _result({"value": _opened(job).work(from_bytes(task))})
    except QGateError as error:
        return _result({"error": said_of(error)})
    except Exception as error:  # noqa: BLE001  # a plugin may raise anything, and what reaches the driver is one line
        return _result({"error": [PluginError.__name__, f"a worker failed: {brief(error)}", None, None]})


def _result(content: dict[str, Any]) -> bytes:
    return to_bytes({**content, "worker": [platform.node(), os.getpid()]})


class Session:
    """One model of a gate, opened here as it is on the driver."""

    def __init__(self, described: dict[str, Any]) -> None:
        folders = map(Path, described["plugins"])
        plugins = [plugin for folder in folders for plugin in load_local_plugin(folder)]
        path, name = Path(described["path"]), described["model"]
        self.gate = Gate.open(path, models=[name], plugins=plugins, content=described["config"].encode())
        self.model = self.gate.config.models[name]
        self.inputs = self.gate.inputs(name)
        self._check(described)

    @cached_property
    def trials(self) -> Trials:
        """Give what tries recipes, on the data that the driver tries them on."""
        folder = Path(tempfile.mkdtemp(prefix="qgate-worker-"))
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        gate, settings = self.gate, self.gate.config.qgate
        inputs = tuning_inputs(self.model, self.inputs, gate.registry, settings.seed, Silent())
        return Trials(gate.writing_to(folder, folder / "cache"), self.model, inputs, folder)

    def _check(self, described: dict[str, Any]) -> None:
        """Raise `ExecutorError` where this worker would compute something else than the driver."""
        reuse = Reuse(self.gate.config, self.model, self.gate.registry, self.gate.environment)
        found = {**reuse.conditions(self.inputs.loaded), "samples": len(self.inputs.evaluation)}
        # As JSON gives it back. A worker may have more installed than the driver.
        differences = _differences(described["conditions"], json.loads(json.dumps(found)))
        if differences:
            raise ExecutorError(
                f"the worker on {platform.node()} would not compute what the driver does: {'; '.join(differences)}; "
                "give all machines the same processor, software, code and data"
            )


@lru_cache(maxsize=1)
def _session(described: str) -> Session:
    return Session(json.loads(described))


@lru_cache(maxsize=2)
def _opened(job: bytes) -> Work:
    content = from_bytes(job)
    return Work(_session(content["gate"]), content["arms"])


def _differences(driver: Key, worker: Key) -> list[str]:
    """Say what differs between the conditions of driver and worker."""
    found = []
    for name, expected in driver.items():
        if name == "machine":
            found += _differences_of_machines(expected, worker[name])
        elif name == "software":
            found += [f"it lacks {item}" for item in sorted(set(expected) - set(worker[name]))[:1]]
        elif worker[name] != expected:
            said = f" ({worker[name]}, not {expected})" if isinstance(expected, int) else ""
            found.append(f"its {name} differ{said}" if name == "samples" else f"its {name} differs{said}")
    return found


def _differences_of_machines(driver: Key, worker: Key) -> list[str]:
    return [f"its {key} is {worker.get(key)}, not {value}" for key, value in driver.items() if worker.get(key) != value]


@dataclass
class Work:
    """A session, and the arms that the job brings, where it does: of each, names and bytes of its files."""

    session: Session
    arms: Mapping[str, Sequence[tuple[str, bytes]]]
    _gathered: tuple[dict[str, Any], Gathering] | None = None

    def work(self, task: dict[str, Any]) -> Any:
        """Do what a task says."""
        settings = self.session.gate.config.qgate
        with torch_state(seed=settings.seed, num_threads=settings.num_threads):
            return self._kinds[task.pop("do")](**task)

    @property
    def _kinds(self) -> dict[str, Callable[..., Any]]:
        return {"hash": self._hash, "evaluate": self._evaluate, "calibrate": self._calibrate, "try": self._try}

    def _hash(self, begin: int, end: int) -> list[str]:
        """Give the fingerprints of evaluation samples."""
        return fingerprints(self.session.inputs.evaluation, range(begin, end))

    def _evaluate(self, begin: int, end: int, metrics: list[str]) -> dict[str, Any]:
        """Run all arms over evaluation samples; give what metrics keep of them, what was read, and digests of targets.

        For a metric that cannot be merged, predictions and targets are given as they are.
        """
        inputs, kinds = self.session.inputs, self.session.gate.registry.metrics
        watchers: dict[str, dict[str, Any]] = {
            arm: {name: kinds.get(name)(inputs.loaded.class_names) for name in metrics if is_mergeable(kinds.get(name))}
            for arm in self._arms
        }
        kept = {arm: Kept() for arm in self._arms}
        if len(watchers["int8"]) < len(metrics):
            watchers = {arm: {**each, "": kept[arm]} for arm, each in watchers.items()}
        part = cast("Dataset", Part(inputs.evaluation, range(begin, end)))
        targets = evaluate(inputs.loaded, self._arms, part, watchers, Silent(), num_workers=1)
        summaries = {
            arm: {name: _summary(metric) for name, metric in each.items() if name} for arm, each in watchers.items()
        }
        return {
            "read": self._hash(begin, end),
            "targets": targets,
            "summaries": summaries,
            "kept": {arm: kept[arm].samples for arm in kept},
        }

    def _calibrate(self, recipe: dict[str, Any], indices: list[int]) -> dict[str, Any]:
        """Give what the recipe's observers would learn from each of some calibration samples, and what was read."""
        inputs, gathering = self.session.inputs, self._gathering(recipe)
        gathering.samples = []
        calibrate(gathering.graph, inputs.loaded, inputs.calibration, indices, gathering)
        return {"read": fingerprints(inputs.calibration, indices), "statistics": gathering.samples}

    def _gathering(self, recipe: dict[str, Any]) -> Gathering:
        """Give the graph of a recipe; that of the last recipe is kept, for preparing it takes seconds."""
        if self._gathered is None or self._gathered[0] != recipe:
            config, registry = self.session.model, self.session.gate.registry
            config = replace(config, quantization=recipe_of(recipe, config.place))
            backend, loaded = available_backend(config, registry), self.session.inputs.loaded
            resolved = resolve(config, registry, backend, loaded.byte_scale)
            graph = prepare(loaded.module, resolved, backend.backend_config(), loaded.example_inputs)
            self._gathered = recipe, Gathering(graph)
        return self._gathered[1]

    def _try(self, recipe: dict[str, Any], max_seconds: float, artifact: bool) -> dict[str, Any]:
        """Try a recipe as `qgate tune` does, but for its speed, which other workers would disturb."""
        trials = self.session.trials
        trial = trials.attempt(recipe_of(recipe, self.session.model.place), max_seconds, timed=False)
        wanted = artifact and not trial.failure
        content = trials.artifact().read_bytes() if wanted else b""
        return {"trial": plain_trial(trial), "artifact": content}

    @cached_property
    def _arms(self) -> dict[str, torch.nn.Module]:
        """Give all arms in the forms that the driver would run."""
        loaded, said = self.session.inputs.loaded, self.session.model.quantization
        forms = float_forms(loaded.module, loaded.example_inputs, said.non_traceable)
        float32 = forms.get("frozen", forms["eager"])
        return {"float32": float32, **{arm: self._loaded(files) for arm, files in self.arms.items()}}

    def _loaded(self, files: Sequence[tuple[str, bytes]]) -> torch.nn.Module:
        with tempfile.TemporaryDirectory(prefix="qgate-worker-") as folder:
            for name, content in files:
                Path(folder, name).write_bytes(content)
            return load_shipped(Path(folder, files[0][0]), self.session.gate.registry)


def _summary(metric: Any) -> Any:
    """Give what a metric keeps. Raises `PluginError` where that does not come back on the driver as it is."""
    summary = metric.summary()
    for name in dataclasses_in(summary):
        raise PluginError(
            f'metric "{metric.name}": its summary holds the dataclass {name}; give numbers, strings, arrays of '
            "numbers, and lists or dicts of these"
        )
    return summary


class Gathering(Silent):
    """A graph that gathers statistics, those of each sample by themselves."""

    def __init__(self, graph: torch.fx.GraphModule) -> None:
        self.graph = graph
        self.samples: list[Statistics] = []
        self._seen = gather_statistics(graph)

    def advance(self, count: int = 1) -> None:  # noqa: ARG002  # one at a time
        """Close a sample."""
        self.samples.append(list(self._seen))
        self._seen.clear()


class Kept:
    """Keeps predictions and targets as they are."""

    name = "kept"

    def __init__(self) -> None:
        self.samples: list[Any] = []

    def update(self, sample_id: str, prediction: Any, target: Any) -> None:
        """Take one sample in."""
        self.samples.append([sample_id, prediction, target])
