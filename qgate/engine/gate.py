"""One `qgate.toml`, opened: its models loaded, quantized, measured and judged."""

from __future__ import annotations

import os
import sys
import time
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timezone
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qgate import __version__
from qgate.blessed import load_blessed
from qgate.config.document import parse
from qgate.config.model import ExecutorConfig
from qgate.config.reader import bind, plugin_modules
from qgate.engine.formats import available_exporter, shipped_path
from qgate.engine.progress import Silent
from qgate.engine.training.processes import ALONE
from qgate.environment import describe_environment, repository_path
from qgate.errors import ConfigError, PluginError, QGateError
from qgate.history import history_folder, record
from qgate.outputs import artifact_output, blessed_output, history_output, results_output
from qgate.plugins import load_registry
from qgate.results import Result

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from qgate.blessed import Blessed, Change
    from qgate.config.model import GateConfig, ModelConfig
    from qgate.engine.load import Inputs
    from qgate.engine.progress import Progress
    from qgate.engine.run import Run
    from qgate.engine.sharded import Workers
    from qgate.outputs import Output
    from qgate.plugins import Registry
    from qgate.protocols import Executor
    from qgate.results import Artifact, ModelResult

__all__ = ["Gate"]


class Gate:
    """The chosen models of one `qgate.toml`; each is run at most once.

    `open` reads the configuration and imports no torch; `preflight` loads models and data; `run` does the work.
    """

    def __init__(
        self,
        config: GateConfig,
        registry: Registry,
        models: tuple[ModelConfig, ...],
        *,
        timing: bool,
        update_blessed: bool,
    ) -> None:
        self.config = config
        self.registry = registry
        self.models = models
        self._timing = timing
        self._update_blessed = update_blessed
        self._keeps_details = True
        self._plugin_folders: tuple[Path, ...] = ()
        self.processes = ALONE
        self._inputs: dict[str, Inputs] = {}
        self._preflight_seconds: dict[str, float] = {}
        self._results: dict[str, ModelResult] = {}

    @classmethod
    def open(  # noqa: PLR0913  # each is an option of a front end, or what a worker was sent
        cls,
        path: Path,
        *,
        models: Sequence[str] = (),
        plugins: Sequence[tuple[object, str]] = (),
        timing: bool = True,
        update_blessed: bool = False,
        content: bytes | None = None,
    ) -> Gate:
        """Read a configuration with its plugins; `models` names those to run, all where it is empty.

        `plugins` are further plugin objects and their names, e.g. a `conftest.py`. The folder of the file joins
        `sys.path`, for the modules that the file names; `content` is read in place of the file's. With `update_blessed`
        every figure is taken as accepted, for `save_blessed` to write; never where the environment variable CI is set.
        Raises `ConfigError`, `PluginError`.
        """
        if update_blessed and os.environ.get("CI", "false").lower() not in ("", "false"):
            raise ConfigError("blessed results are never updated where CI is set: a person blesses, and commits")
        document = parse(path, content)
        folder = str(path.resolve().parent)
        if folder not in sys.path:
            sys.path.insert(0, folder)
        registry = load_registry(plugin_modules(document), plugins)
        config = bind(document, registry)
        files = [getattr(plugin, "__file__", None) for plugin, _ in plugins]
        gate = cls(config, registry, _choose(config, models), timing=timing, update_blessed=update_blessed)
        gate._plugin_folders = tuple(Path(file).parent for file in files if file)
        return gate

    def preflight(self) -> None:
        """Load every chosen model, open its data, and see that what is found can be written.

        Raises `QGateError`: nothing slow has started yet.
        """
        for output in self._outputs():
            output.check()
        self.blessed  # noqa: B018  # a damaged file shows at once
        self.executor  # noqa: B018  # and so does one that cannot work here

        from qgate.engine.quantize import available_backend, resolve
        from qgate.engine.training.train import check_trainable

        for model in self.models:
            begin = time.perf_counter()
            resolve(model, self.registry, available_backend(model, self.registry))
            inputs = self._open(model)
            if model.quantization.approach == "qat":
                check_trainable(model, inputs, self.processes)
            self._preflight_seconds[model.name] = time.perf_counter() - begin

    def run(self, name: str, progress: Progress | None = None, *, timing: bool = True) -> ModelResult:
        """Run the gate of one model; what cannot be measured becomes verdicts with status `error`.

        Without `timing` no speed is measured, whatever `open` was told.
        """
        if name not in self._results:
            model = self._model(name)
            self._results[name] = self._new_run(model, progress).judged(
                lambda: self._open(model),
                blessed=None if self._update_blessed else self.blessed.models.get(name, {}),
                timing=self._timing and timing,
                preflight_seconds=self._preflight_seconds.get(name, 0.0),
                details=self.config.qgate.details / f"{name}.details" if self._keeps_details else None,
            )
        return self._results[name]

    def export(
        self, name: str, output: Path, progress: Progress | None = None, file_format: str | None = None
    ) -> Artifact:
        """Quantize one model and write it to `output`, without judging it: its artifact, or a file of another format.

        Raises `QGateError`.
        """
        model = self._model(name)
        artifact_output(output).check()
        exporter = available_exporter(self.registry, file_format, output) if file_format else None
        return self._new_run(model, progress).exported(lambda: self._open(model), output, exporter)

    def help(self) -> None:
        """Train along with rank 0 of `processes`, whatever models it trains, and write nothing.

        What goes wrong here or there ends the training of one model: rank 0 knows and reports it.
        """
        from qgate.engine.state import torch_state
        from qgate.engine.training.train import help_training

        seed, threads = self.config.qgate.seed, self.config.qgate.num_threads
        while order := self.processes.next_order():
            state = torch_state(seed=seed, num_threads=threads)
            with suppress(Exception), state, self.processes.together():
                model = self._model(order["model"])
                help_training(model, self.registry, self._open(model), seed, self.processes, order["alike"])

    def writing_to(self, folder: Path, cache: Path | None = None) -> Gate:
        """Give a gate of the same models and data that writes into `folder`, and to a `cache` of its own or to ours.

        It keeps no details for reports, and works in this process, whatever the executor.
        """
        cache = cache or self.config.qgate.cache
        settings = replace(
            self.config.qgate,
            results=folder / "results.json",
            artifacts=folder,
            cache=cache,
            executor=ExecutorConfig(),
        )
        config = replace(self.config, qgate=settings)
        other = Gate(config, self.registry, self.models, timing=self._timing, update_blessed=False)
        other._inputs = self._inputs
        other._keeps_details = False
        return other

    def inputs(self, name: str) -> Inputs:
        """Give a model and its data, opened. Raises `QGateError`."""
        return self._open(self._model(name))

    def result(self) -> Result:
        """Give what all runs so far have found."""
        created = datetime.now(timezone.utc).isoformat(timespec="seconds")
        path = repository_path(self.config.path)
        folder = self.config.path.parent
        models = dict(self._results)
        return Result(
            __version__, created, self.config.sha256, self.environment, models, config_path=path, folder=folder
        )

    def save(self, result: Result) -> None:
        """Write `result` to where `[qgate] results` says, and a short form of it to the history beside it.

        Each file is written atomically. Raises `ResultsError`.
        """
        result.save(self.config.qgate.results)
        record(self.config.qgate.results, result)

    def save_blessed(self, result: Result) -> list[Change]:
        """Bless what `result` measured, write the file atomically, and give what changed. Raises `ResultsError`."""
        updated = self.blessed.updated(result)
        changes = self.blessed.changes_to(updated)
        if changes:
            updated.save(self.config.qgate.blessed)
        return changes

    @cached_property
    def blessed(self) -> Blessed:
        """Read the blessed results. Raises `ResultsError` where the file is damaged."""
        return load_blessed(self.config.qgate.blessed)

    @cached_property
    def executor(self) -> Executor | None:
        """Give who works on samples in place of this process. Raises `ExecutorError` where that cannot be."""
        chosen = self.config.qgate.executor
        if chosen.name == ExecutorConfig.name:
            return None
        try:
            return self.registry.executors.get(chosen.name)(chosen.options)
        except QGateError:
            raise
        except Exception as error:
            raise PluginError(f'executor "{chosen.name}" cannot work: {type(error).__name__}: {error}') from error

    @cached_property
    def environment(self) -> dict[str, Any]:
        """Describe the machine and the software."""
        return describe_environment(self.config.qgate.num_threads, self.config.path.resolve().parent)

    def _outputs(self) -> Iterator[Output]:
        settings = self.config.qgate
        for model in self.models:
            path = settings.artifacts / f"{model.name}.pt"
            yield artifact_output(path)
            shipped = shipped_path(path, model.quantization.backend, self.registry)
            if shipped:
                yield artifact_output(shipped)
        yield results_output(settings.results)
        yield history_output(history_folder(settings.results) / "run.json")
        if self._update_blessed:
            yield blessed_output(settings.blessed)

    def _new_run(self, model: ModelConfig, progress: Progress | None) -> Run:
        from qgate.engine.run import Run

        run = Run(self.config, model, self.registry, self.environment, progress or Silent())
        run.production.processes = self.processes
        run.workers = self.workers(model)
        return run

    def workers(self, model: ModelConfig) -> Workers | None:
        """Give the executor's workers for one model; None where this process works."""
        from qgate.engine.sharded import Workers

        return Workers(self.executor, self.config, model, self._plugin_folders) if self.executor else None

    def _model(self, name: str) -> ModelConfig:
        return _choose(self.config, [name])[0]

    def _open(self, model: ModelConfig) -> Inputs:
        from qgate.engine.load import open_inputs

        if model.name not in self._inputs:
            self._inputs[model.name] = open_inputs(model, self.registry)
        return self._inputs[model.name]


def _choose(config: GateConfig, names: Sequence[str]) -> tuple[ModelConfig, ...]:
    for name in names:
        if name not in config.models:
            raise ConfigError(f'has no model "{name}"; it has {", ".join(config.models)}', path=config.path)
    return tuple(model for name, model in config.models.items() if not names or name in names)
