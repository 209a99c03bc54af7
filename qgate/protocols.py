"""The seams: what a plugin provides, and what the engine hands it.

Arrays are numpy's, tensors are torch's. Nothing here imports either: the protocols cost nothing to import.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    import numpy as np
    import torch
    from numpy.typing import NDArray
    from typing_extensions import Self

    from qgate.panels import Panel
    from qgate.results import Result

__all__ = [
    "Backend",
    "Calibrator",
    "Dataset",
    "Executor",
    "Exporter",
    "LoadedModel",
    "Loader",
    "MergeableMetric",
    "Metric",
    "Panels",
    "Reporter",
    "Sample",
]


@dataclass(frozen=True)
class Sample:
    """One item of a data set: a stable id, what the model's `preprocess` takes, and what a metric compares with."""

    id: str
    input: Any
    target: Any = None


def _as_batch(sample_input: Any) -> tuple[tuple[torch.Tensor, ...], Any]:
    """Give a tensor or array as a batch of one, without context."""
    import torch

    return (torch.as_tensor(sample_input).unsqueeze(0),), None


def _as_is(output: Any, _context: Any) -> Any:
    return output


@dataclass(frozen=True)
class LoadedModel:
    """A float32 model, and how a sample gets into it and a prediction out of it.

    `module` is in eval mode and maps preprocessed inputs to raw outputs; FX must be able to trace it.
    `preprocess` maps `Sample.input` to the module's positional inputs, a batch of one, and a context;
    `postprocess` maps the raw output of that batch and the context to one prediction. Both arms share them.
    `source_sha256` identifies the weights; `input_description` is JSON-able and travels in the artifact,
    for those who deploy it. `class_names` may be empty where the task has no classes. Where the module's one input is
    made of bytes, each times the same factor, `byte_scale` is that factor: the int8 model then takes the bytes, too.

    Three more serve `approach = "qat"`, and all may be left out. `augment` makes a training batch of samples: the
    module's inputs, and targets as `supervised_loss` takes them; it draws from the generator alone, so that a training
    can be repeated, and its options are the loader's `Augmentation`, None without one. Without it, samples are
    preprocessed as in evaluation and concatenated, and targets are a list of theirs. `supervised_loss` maps raw outputs
    of a batch and its targets, `distillation_loss` the raw outputs of the model in training and of float32, to a tensor
    without dimensions, a mean over the batch. Without the latter, it is the squared error as a share of float32's
    variance. `qgate tune` compares recipes by `distillation_loss`, on samples and on what `augment` makes of each.
    """

    module: torch.nn.Module
    example_inputs: tuple[torch.Tensor, ...]
    preprocess: Callable[[Any], tuple[tuple[torch.Tensor, ...], Any]] = _as_batch
    postprocess: Callable[[Any, Any], Any] = _as_is
    class_names: tuple[str, ...] = ()
    input_description: Mapping[str, Any] = field(default_factory=dict)
    source_sha256: str | None = None
    byte_scale: float | None = None
    supervised_loss: Callable[[Any, Any], torch.Tensor] | None = None
    distillation_loss: Callable[[Any, Any], torch.Tensor] | None = None
    augment: Callable[[Sequence[Sample], np.random.Generator, Any], tuple[tuple[torch.Tensor, ...], Any]] | None = None


class Loader(Protocol):
    """Loads float32 models.

    `Options` is a frozen dataclass: the keys that `[models.X]` takes beyond the core's own.
    A field of type `Path` is resolved against the folder of `qgate.toml`. A loader whose models `augment` may have a
    second such class, `Augmentation`: the keys of `[models.X.quantization.training] augment`, each with a default.
    """

    name: ClassVar[str]
    Options: ClassVar[type]

    def load(self, options: Any) -> LoadedModel:
        """Load the model that `options` (an `Options`) describes. Raises `ModelError`."""
        ...


class Dataset(Protocol):
    """A data set of one format, opened from one split of `qgate.toml`.

    `Options` is a frozen dataclass: the keys of a split. `open` reads and checks annotations, and that every
    file is there and not empty; it reads no sample. `sample` reads lazily and is called from several threads.
    """

    name: ClassVar[str]
    Options: ClassVar[type]

    @classmethod
    def open(cls, options: Any, *, class_names: Sequence[str], require_targets: bool) -> Self:
        """Open a split for a model of these classes (empty: unknown). Raises `DataError`."""
        ...

    def __len__(self) -> int: ...

    def sample(self, index: int) -> Sample:
        """Read one sample. Raises `DataError` that names the file."""
        ...

    def sample_id(self, index: int) -> str:
        """Name a sample, stably across machines and without reading it."""
        ...

    def strata(self, index: int) -> frozenset[str]:
        """Name what a sample holds (its classes), without reading it; empty where that is not known."""
        ...

    def fingerprint(self, index: int) -> str:
        """Hash a sample's content (not its name): equal content, equal fingerprint."""
        ...


class Metric(Protocol):
    """A re-weightable measure of predictions against targets, one instance an arm.

    One protocol serves the point value (weights of one), the paired bootstrap (the same random weights for both
    arms) and slices.

    A metric that needs no labels sets `compares_with` to "float32" (without the attribute: "targets"): then `target`
    is float32's prediction of the same sample. The float32 arm is compared with itself.
    """

    name: ClassVar[str]
    unit: ClassVar[str]
    higher_is_better: ClassVar[bool]

    def __init__(self, class_names: Sequence[str]) -> None:
        """Begin anew for a model of these classes. Raises a `QGateError` where it says nothing of them."""
        ...

    def update(self, sample_id: str, prediction: Any, target: Any) -> None:
        """Take one sample in. Samples are columns of the weights, in the order of these calls."""
        ...

    def compute(self, weights: NDArray[np.float64], where: Mapping[str, str] | None = None) -> NDArray[np.float64]:
        """Compute the metric for each row of `weights`.

        `weights` has shape (rows, samples), is not negative and need not sum to one: a sample of weight 2 counts
        as if it were there twice. Returns shape (rows,), NaN where the metric is undefined. `where` restricts the
        metric to one slice, e.g. `{"class": "person"}`.
        """
        ...

    def slices(self) -> Mapping[str, Sequence[str]]:
        """List the slices that `where` may name, e.g. `{"class": ["person", ...], "size": ["small", ...]}`."""
        ...

    def support(self, where: Mapping[str, str] | None = None) -> int:
        """Count what the metric rests on: targets in the slice (or samples, where there are no targets)."""
        ...


class MergeableMetric(Metric, Protocol):
    """A metric whose samples may be taken in elsewhere, a shard of the data set at a time.

    An executor's workers have instances of their own; only what they keep of their samples reaches the driver.
    """

    def summary(self) -> Any:
        """Give what is kept of the samples so far: numbers, strings, arrays of numbers, and lists or dicts of these."""
        ...

    def merge(self, summary: Any) -> None:
        """Take in another instance's samples after one's own, as if `update` had: the same values to the last bit."""
        ...


class Calibrator(Protocol):
    """Chooses the samples that the observers see."""

    name: ClassVar[str]

    def select(self, dataset: Dataset, num_samples: int, rng: np.random.Generator) -> list[int]:
        """Choose `num_samples` distinct indices of `dataset`, or all of them where there are fewer."""
        ...


class Backend(Protocol):
    """Kernels that run an int8 model.

    Two class attributes, False where they are missing, say what is better left float32. With `float_outputs` it is what
    leaves the model straight from a layer: the layer's kernel writes float32, or there is none for it. With
    `float_summands` it is a result to which an earlier value is added: the layer's kernel adds before it quantizes. A
    method `refine(reference)` may change a reference graph where a `BackendConfig` cannot say what the kernels want.

    A backend that runs another file than the artifact names the exporter that writes it, as a class attribute
    `exporter`, and has `load(path)`, which reads that file from disk: then that is what ships, and what is judged.
    """

    name: ClassVar[str]

    def is_available(self) -> str | None:
        """Give the reason why this machine cannot run the backend; None where it can."""
        ...

    def backend_config(self) -> Any:
        """Give the `torch.ao` `BackendConfig`: which patterns are quantized, and where observers belong."""
        ...

    def needs_reduced_range(self) -> bool:
        """Say whether this backend's kernels saturate on this CPU with 8-bit activations."""
        ...

    def lower(self, reference: torch.fx.GraphModule, example_inputs: tuple[torch.Tensor, ...]) -> torch.nn.Module:
        """Turn a reference graph (explicit quantize and dequantize nodes) into the fastest form that runs here."""
        ...


class Panels(Protocol):
    """Shows in reports what became of the predictions of one model; the run makes it, and stores what it shows."""

    name: ClassVar[str]

    def __init__(self, class_names: Sequence[str]) -> None: ...

    def update(self, sample_id: str, float32: Any, int8: Any, target: Any) -> None:
        """Take in both arms' predictions of one sample; those of another kind are left alone.

        Samples come in the data set's order. Memory is what is kept here: keep what `panels` needs.
        """
        ...

    def panels(self, read: Callable[[int], Sample]) -> Iterable[Panel]:
        """Give what is to be shown, nothing where no prediction was of its kind; `read` reads a sample by its index."""
        ...


class Exporter(Protocol):
    """Writes a reference graph as a file that runs without qgate; `suffix` is what its name ends in."""

    name: ClassVar[str]
    suffix: ClassVar[str]

    def is_available(self) -> str | None:
        """Give the reason why nothing can be written here; None where it can."""
        ...

    def export(
        self, reference: torch.fx.GraphModule, example_inputs: tuple[torch.Tensor, ...], header: Mapping[str, Any]
    ) -> bytes:
        """Give the file's content; `header` is the artifact's. Raises `ArtifactError` for what it cannot write."""
        ...


class Reporter(Protocol):
    """Writes a result in one format."""

    name: ClassVar[str]

    def write(self, result: Result, destination: Path | None) -> None:
        """Write `result` to `destination`, or to standard output where it is None."""
        ...


class Executor(Protocol):
    """Has tasks worked on elsewhere: in other processes, on other machines.

    `Options` is a frozen dataclass: the keys of `[qgate.executor]` beside `name`. Job and tasks are bytes that hold
    JSON and arrays, no pickles; a job is the same for all tasks of a call, so it need be sent but once.
    """

    name: ClassVar[str]
    Options: ClassVar[type]

    def __init__(self, options: Any) -> None: ...

    def map(self, job: bytes, tasks: Iterable[bytes], num_threads: int) -> Iterator[bytes]:
        """Give `qgate.engine.worker.perform(job, task)` for each task, in the order of the tasks.

        Each call of `perform` computes on `num_threads` threads. A task whose worker died may be given to another: it
        changes nothing. Take few tasks ahead of those whose results were asked for: results wait in memory. Raises
        `ExecutorError`.
        """
        ...
