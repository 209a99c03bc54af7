"""What a run takes from earlier ones and leaves for later ones: nothing is computed twice that cannot have changed."""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from qgate.engine.artifact import content_sha256
from qgate.engine.cache import Cache
from qgate.engine.calibrate import calibrate
from qgate.engine.digest import digest, evaluator_settings, weights_sha256
from qgate.engine.evaluate import brief, evaluate, naming, predict, read_sample
from qgate.engine.overlap import fingerprints
from qgate.engine.quantize import Calibration, Plan, available_backend, quantize_by, resolve, said_of_recipe
from qgate.engine.recording import Recording, replayed
from qgate.engine.sources import code_sha256, installed_software
from qgate.engine.storable import Packer, UnstorableError, class_name, unpack
from qgate.engine.tensors import tensors_of
from qgate.engine.training.checkpoint import Checkpoint
from qgate.engine.training.train import Lesson, train_by
from qgate.errors import QGateError
from qgate.quantization.byte_table import kernel_name
from qgate.quantization.codec import encode
from qgate.quantization.ranges import ranges_of, take_ranges

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from qgate.config.model import GateConfig, ModelConfig
    from qgate.engine.artifact import Encoded
    from qgate.engine.cache import Entry, Key
    from qgate.engine.evaluate import Arms, PairWatcher, Watcher
    from qgate.engine.fallback.find import Case
    from qgate.engine.load import Inputs
    from qgate.engine.progress import Progress, StepClock
    from qgate.engine.sharded import Workers
    from qgate.engine.training.processes import Processes
    from qgate.plugins import Registry
    from qgate.protocols import Dataset, LoadedModel, Metric
    from qgate.quantization.prepare import Recipe

__all__ = ["Reuse"]

T = TypeVar("T")

# Variables by which oneDNN and torch are told to use fewer instructions than the CPU has.
_ISA_LIMITS = ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA", "ATEN_CPU_CAPABILITY")
# What decoders raise where an entry is not what a run has written.
_MISFITS = (LookupError, TypeError, ValueError)
# Keys of a recipe that nothing depends on until it is calibrated: activations are float till then.
_AFTER_CALIBRATION = ("weight", "weight_rounding", "bias_correction", "approach", "training")


class Reuse:
    """The cache as one model's run uses it: `used` maps what came from it to when that was computed (ISO 8601).

    Every key holds what all results depend on: the model's weights and structure, the loader's options, the code of
    qgate, of plugins and of the model, the versions of what is installed, the machine, and the seed.
    What is not known is computed by `workers`, where there are some.
    """

    def __init__(self, config: GateConfig, model: ModelConfig, registry: Registry, environment: dict[str, Any]) -> None:
        self.used: dict[str, str] = {}
        self.notes: dict[str, None] = {}
        self.workers: Workers | None = None
        self._settings = config.qgate
        self._model = model
        self._registry = registry
        self._environment = environment
        self._cache = Cache(config.qgate.cache, config.qgate.cache_bytes)
        self._conditions: Key | None = None
        self._is_telling = True
        self._calibrating: tuple[Sequence[int], Key] = ((), {})

    def quantized(
        self, model: ModelConfig, inputs: Inputs, chosen: Sequence[int], clock: StepClock
    ) -> tuple[Encoded, Recipe]:
        """Give the calibrated reference graph, encoded, and the recipe, as `quantize` does."""
        backend = available_backend(model, self._registry)
        recipe = resolve(model, self._registry, backend, inputs.loaded.byte_scale)
        said = said_of_recipe(model, recipe)
        key = self._recipe_key("int8 graph", inputs, chosen, {**said, "training": None})
        known: Encoded | None = self._recalled(key, lambda entry: unpack(entry.document, entry.blob, {}))
        if known is None:
            calibration = self._calibration_of(model, inputs, chosen, said)
            graph, recipe = quantize_by(calibration, model, self._registry, clock)
            known = encode(graph, inputs.loaded.example_inputs)
            self._store(key, lambda: known)
        return known, recipe

    def trained(self, case: Case, clock: StepClock, processes: Processes) -> tuple[Encoded, Recipe, dict[str, Any]]:
        """Give the trained reference graph, encoded, the recipe, and what is to be said of the training."""
        inputs, model = case.inputs, case.model
        plan = Plan.of(model, self._registry, inputs.loaded)
        said = said_of_recipe(model, plan.recipe)
        lesson = Lesson(model, inputs, plan, case.judged, self._settings.seed, processes)
        about = {**said, "trained on": lesson.trained_on(), "judged": case.judged}
        identity = self._identity("trained int8 graph", inputs.loaded, lambda: self._about(inputs, case.chosen, about))
        key = identity if self._cache.max_bytes else None
        known: list[Any] | None = self._recalled(key, lambda entry: unpack(entry.document, entry.blob, {}))
        if known is None:
            checkpoint = (
                Checkpoint(self._settings.artifacts / f"{model.name}.checkpoint", identity) if identity else None
            )
            calibration = self._calibration_of(model, inputs, case.chosen, said)
            if self.workers:
                self.workers.note("training is no work for workers: this process trained")
            graph, described = train_by(calibration, lesson, checkpoint, clock)
            known = [encode(graph, inputs.loaded.example_inputs), described]
            self._store(key, lambda: known)
            if checkpoint:
                checkpoint.remove()
        return known[0], plan.recipe, known[1]

    def _calibration_of(self, model: ModelConfig, inputs: Inputs, chosen: Sequence[int], said: Key) -> Calibration:
        of_ranges = {name: value for name, value in said.items() if name not in _AFTER_CALIBRATION}
        key = self._recipe_key("calibration", inputs, chosen, of_ranges)
        show = self.workers.calibrator(model.quantization) if self.workers else calibrate
        return _Calibration(inputs, chosen, self, key, show=show)

    def filled(self, key: Key | None, observed: torch.fx.GraphModule, fill: Callable[[], None]) -> None:
        """Fill observers, unless it is known what they find."""
        told = self._recalled(key, lambda entry: take_ranges(observed, unpack(entry.document, entry.blob, {})))
        if told is None:
            fill()
            self._store(key, lambda: ranges_of(observed))

    def found(  # noqa: PLR0913, PLR0917  # what it depends on, and how it is stored
        self,
        kind: str,
        case: Case,
        find: Callable[[], T],
        depends_on: Any = None,
        classes: Sequence[type] = (),
        is_final: Callable[[T], bool] = lambda _: True,
    ) -> T:
        """Give what `find` finds out about an artifact with its data, or what an earlier run has found.

        `classes` are the dataclasses that it is made of; what is not final is not stored.
        """

        def about() -> Key:
            samples = {"judged": digest(case.judged), **self._calibration(case.inputs, case.chosen)}
            return {"artifact": _content(case.artifact), "depends_on": digest(depends_on), **samples}

        known_classes = {class_name(each): each for each in classes}
        key = self._key(kind, case.inputs.loaded, about)
        known: list[T] | None = self._recalled(key, lambda entry: unpack(entry.document, entry.blob, known_classes))
        if known is None:
            found = known = [find()]
            if is_final(found[0]):
                self._store(key, lambda: found)
        return known[0]

    def recording(self, arm: str, module: torch.nn.Module, case: Case, artifact: Path | None = None) -> Recording:
        """Give what is known of an arm's predictions of the evaluation samples; `artifact` is that of an int8 arm.

        `module` is run on one sample to see whether they still hold. It may be another form of the arm: what it
        predicts is compared with what it predicted.
        """
        inputs, count = case.inputs, len(case.judged)

        def about() -> Key:
            kept_whole = list(self._model.quantization.non_traceable)
            content = _content(artifact) if artifact else None
            samples = {"samples": digest(case.judged), "first": _first(inputs.loaded, inputs.evaluation, 0)}
            return {"artifact": content, "kept_whole": kept_whole, **samples}

        def fresh(index: int) -> Any:
            with torch.inference_mode():
                return predict(inputs.loaded, {arm: module}, read_sample(inputs.evaluation, index))[arm]

        key = self._key(f"{arm} predictions", inputs.loaded, about) if count else None
        known = self._recalled(key, lambda entry: replayed(entry, count, fresh))
        return Recording(key, fresh, count, self._cache.max_bytes, known)

    def evaluated(  # noqa: PLR0913, PLR0917  # what `evaluate` takes, and where predictions go
        self,
        inputs: Inputs,
        arms: Arms,
        metrics: Mapping[str, Mapping[str, Metric]],
        recordings: Mapping[str, Recording],
        progress: Progress,
        of_both: Sequence[PairWatcher],
    ) -> list[str]:
        """Evaluate in this process, as `evaluate` does, and store the predictions."""
        watchers: dict[str, dict[str, Watcher]] = {
            arm: {"recording": recordings[arm], **each} for arm, each in metrics.items()
        }
        targets = evaluate(inputs.loaded, arms, inputs.evaluation, watchers, progress, of_both=of_both)
        for recording in recordings.values():
            self._store_predictions(recording)
        return targets

    def _store_predictions(self, recording: Recording) -> None:
        """Store the predictions that were taken in, where all of them could be kept."""
        packed = recording.packed()
        if recording.key and packed:
            self._put(recording.key, *packed)

    def _recalled(self, key: Key | None, read: Callable[[Entry], T]) -> T | None:
        """Give what `read` makes of an entry; None where there is none, or it is not what a run has written."""
        entry = self._cache.get(key) if key else None
        if key is None or entry is None:
            return None
        try:
            value = read(entry)
        except _MISFITS:
            return None
        self.used[key["kind"]] = entry.created
        return value

    def _store(self, key: Key | None, give: Callable[[], Any]) -> None:
        """Store a value; what cannot be given or stored is not, e.g. ranges of an observer that saw nothing."""
        if key is None:
            return
        packer = Packer()
        with suppress(UnstorableError, QGateError):
            packed = packer.pack(give())
            self._put(key, packed, bytes(packer.blob))

    def _put(self, key: Key, document: Any, blob: bytes) -> None:
        try:
            self._cache.put(key, document, blob)
        except OSError as error:
            remedy = "name another folder as `cache` in [qgate], or switch it off with cache_bytes = 0"
            self._note(f"the cache cannot be written ({error.strerror or error}); {remedy}")

    def _key(self, kind: str, loaded: LoadedModel, about: Callable[[], Key]) -> Key | None:
        """Say what an entry is of: its kind, `about`, and what all depends on; None where nothing is cached.

        That is also so where it cannot be said: a model may hold what has no hash.
        """
        return self._identity(kind, loaded, about) if self._cache.max_bytes else None

    def _identity(self, kind: str, loaded: LoadedModel, about: Callable[[], Key]) -> Key | None:
        conditions = self._told(loaded)
        if conditions is None:
            return None
        try:
            return {"kind": kind, **conditions, **about()}
        except QGateError:
            raise
        except Exception as error:  # noqa: BLE001  # a user's classes may be of any kind
            self._note(f"{kind}: not cached, for what that depends on cannot be told: {brief(error)}")
            return None

    def _told(self, loaded: LoadedModel) -> Key | None:
        """Say what all results depend on; None where that has failed, which is tried and noted once."""
        if self._conditions is None and self._is_telling:
            self._is_telling = False
            try:
                self._conditions = self.conditions(loaded)
            except QGateError:
                raise
            except Exception as error:  # noqa: BLE001  # a user's classes may be of any kind
                self._note(f"nothing is cached, for what all results depend on cannot be told: {brief(error)}")
        return self._conditions

    def conditions(self, loaded: LoadedModel) -> Key:
        """Say what all results depend on."""
        options = self._model.options
        machine = {name: value for name, value in self._environment.items() if name != "git_commit"}
        return {
            "model": _model_sha256(loaded),
            "loader": [self._model.loader, evaluator_settings(options)],
            "code": code_sha256(self._registry.modules(), {*_modules_of(loaded), *_named_modules(options)}),
            "software": installed_software(),
            "machine": {**machine, **{name: os.environ.get(name) for name in _ISA_LIMITS}, "tables": kernel_name()},
            "seed": self._settings.seed,
        }

    def _recipe_key(self, kind: str, inputs: Inputs, chosen: Sequence[int], said: Key) -> Key | None:
        return self._key(kind, inputs.loaded, lambda: self._about(inputs, chosen, said))

    def _about(self, inputs: Inputs, chosen: Sequence[int], said: Key) -> Key:
        return {"recipe": digest(said), **self._calibration(inputs, chosen)}

    def _calibration(self, inputs: Inputs, chosen: Sequence[int]) -> Key:
        """Identify the calibration samples in their order, and what `preprocess` makes of them."""
        if self._calibrating[0] != chosen:
            samples = digest(fingerprints(inputs.calibration, chosen))
            first = _first(inputs.loaded, inputs.calibration, chosen[0])
            self._calibrating = (chosen, {"samples": samples, "first": first})
        return self._calibrating[1]

    def _note(self, note: str) -> None:
        self.notes[note] = None


@dataclass(frozen=True)
class _Calibration(Calibration):
    """A calibration that an earlier run may have done."""

    reuse: Reuse
    key: Key | None

    def fill(self, observed: torch.fx.GraphModule, clock: StepClock) -> None:
        """Show the samples to the observers, or tell them what they find."""
        self.reuse.filled(self.key, observed, lambda: super(_Calibration, self).fill(observed, clock))


def _first(loaded: LoadedModel, dataset: Dataset, index: int) -> str:
    """Hash what `preprocess` makes of a sample: it may depend on more than its code and the loader's options."""
    sample = read_sample(dataset, index)
    with naming("preprocess", sample):
        inputs, _ = loaded.preprocess(sample.input)
    return digest(inputs)


def _content(artifact: Path) -> str:
    status = artifact.stat()
    return _content_of(artifact, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=4)
def _content_of(artifact: Path, _changed: int, _bytes: int) -> str:
    return content_sha256(artifact)


def _model_sha256(loaded: LoadedModel) -> str:
    """Hash a model's structure, its parameters and buffers, and what is said of its inputs and classes.

    A module may hold more that decides what it computes. That shows in its outputs for inputs of noise.
    """
    sha256 = hashlib.sha256(weights_sha256(loaded.module).encode())
    sha256.update(digest([loaded.class_names, loaded.byte_scale, loaded.example_inputs]).encode())
    with torch.inference_mode():
        outputs = loaded.module(*map(_noise, loaded.example_inputs))
    sha256.update(digest([value.double() for value in tensors_of(outputs)]).encode())  # numpy has no bfloat16
    return sha256.hexdigest()


def _noise(value: torch.Tensor) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(value.shape, generator=generator, dtype=value.dtype) if value.is_floating_point() else value


def _modules_of(loaded: LoadedModel) -> Iterator[str]:
    """Name the Python modules that a loaded model's code is in."""
    functions = (
        loaded.preprocess,
        loaded.postprocess,
        loaded.augment,
        loaded.supervised_loss,
        loaded.distillation_loss,
    )
    for part in (*loaded.module.modules(), *filter(None, functions)):
        yield getattr(part, "__module__", None) or type(part).__module__


def _named_modules(options: Any) -> Iterator[str]:
    """Name the Python modules that options name, as in `package.module:function`."""
    for value in evaluator_settings(options).values():
        if isinstance(value, str) and ":" in value:
            yield value.partition(":")[0]
