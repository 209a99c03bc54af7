"""What is trained on, and what decides which epoch was the best: both of the training data, neither judged by."""

from __future__ import annotations

import itertools
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from qgate.engine.evaluate import brief, naming, read_sample
from qgate.errors import DataError, ModelError, QGateError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from qgate.config.model import Place
    from qgate.protocols import Dataset, LoadedModel, Sample

__all__ = ["Batch", "Batches", "Division", "augmented_batch", "check_count", "divide_training"]

_AHEAD = 2


class Batch(NamedTuple):
    """The module's inputs, what `supervised_loss` takes with its outputs, and the number of samples."""

    inputs: tuple[torch.Tensor, ...]
    targets: Any
    size: int


@dataclass(frozen=True)
class Division:
    """Indices of training data: to learn from, to validate with; and how many were left out, being judged by."""

    learning: list[int]
    validation: list[int]
    left_out: int


def divide_training(  # noqa: PLR0913, PLR0917  # the data, how they are divided, and for whom
    samples: Sequence[str], judged: Iterable[str], share: float, seed: int, place: Place, processes: int = 1
) -> Division:
    """Divide training data at random; samples that judge are in neither part. Both are given by their fingerprints.

    Raises `DataError` where too few are left, as `check_count` does.
    """
    drawn = np.random.default_rng(seed).permutation(len(samples)).tolist()
    known = set(judged)
    kept = [index for index in drawn if samples[index] not in known]
    check_count(len(drawn), len(drawn) - len(kept), share, processes, place)
    held_out = _held_out(len(kept), share)
    return Division(kept[held_out:], kept[:held_out], len(drawn) - len(kept))


def check_count(num_samples: int, judged: int, share: float, processes: int, place: Place) -> None:
    """Raise `DataError` where too few samples are left: one to validate with, and one to learn from for each process.

    `judged` of them are evaluation samples, which are left out.
    """
    kept = num_samples - judged
    if kept - _held_out(kept, share) >= processes:
        return
    needed = next(count for count in itertools.count(kept) if count - _held_out(count, share) >= processes)
    found = f"of {num_samples} training samples {judged} are evaluation samples, by content"
    training = "training" if processes == 1 else f"training in {processes} processes"
    raise DataError(
        f"{found}; {training} needs {needed} others at least",
        path=place.path,
        line=place.line,
    )


def _held_out(kept: int, share: float) -> int:
    """Say how many of the samples validate."""
    return max(1, round(share * kept))


@dataclass(frozen=True)
class Batches:
    """Makes batches of a data set's samples, as the loader's `augment` does, or as in evaluation."""

    loaded: LoadedModel
    dataset: Dataset
    options: Any

    def __call__(self, groups: Sequence[Sequence[int]], seeds: Sequence[int], *, augmented: bool) -> Iterator[Batch]:
        """Give a batch for each group of indices; a second thread works ahead. `seeds` and a group's place seed it."""

        def make(number: int) -> Batch:
            samples = [read_sample(self.dataset, index) for index in groups[number]]
            if augmented and self.loaded.augment is not None:
                return augmented_batch(self.loaded, samples, np.random.default_rng([*seeds, number]), self.options)
            return _concatenated(self.loaded, samples)

        numbers = iter(range(len(groups)))
        with ThreadPoolExecutor(1, "qgate-train", torch.set_num_threads, (1,)) as pool:
            ahead = deque(pool.submit(make, number) for number in itertools.islice(numbers, _AHEAD))
            while ahead:
                yield ahead.popleft().result()
                ahead.extend(pool.submit(make, number) for number in itertools.islice(numbers, 1))


def augmented_batch(loaded: LoadedModel, samples: Sequence[Sample], rng: np.random.Generator, options: Any) -> Batch:
    """Make a batch as the loader's `augment` does, which must be there. Raises `ModelError` that names the samples."""
    assert loaded.augment is not None  # noqa: S101  # whoever calls has looked
    try:
        inputs, targets = loaded.augment(samples, rng, options)
    except QGateError:
        raise
    except Exception as error:
        names = ", ".join(sample.id for sample in samples)
        raise ModelError(f"augment failed at the samples {names}: {brief(error)}") from error
    return Batch(tuple(inputs), targets, len(samples))


def _concatenated(loaded: LoadedModel, samples: list[Sample]) -> Batch:
    """Preprocess samples as in evaluation. Raises `ModelError` where their shapes differ."""
    prepared = []
    for sample in samples:
        with naming("preprocess", sample):
            prepared.append(loaded.preprocess(sample.input)[0])
    try:
        inputs = tuple(torch.cat(values) for values in zip(*prepared, strict=True))
    except (RuntimeError, ValueError) as error:
        raise ModelError(
            f"samples cannot be put in one batch ({error}); let preprocess give one shape, or set batch_size = 1"
        ) from error
    return Batch(inputs, [sample.target for sample in samples], len(samples))
