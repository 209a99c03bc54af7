"""One arm's predictions of all evaluation samples: stored, and given again where a fresh one shows that they hold."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from qgate.engine.digest import digest
from qgate.engine.storable import Packer, UnstorableError, dataclasses_in, unpack

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from qgate.engine.cache import Entry, Key

__all__ = ["Recording", "replayed"]


@dataclass
class Recording:
    """Predictions of `num_samples` samples: `known` of an earlier run, or else taken in as they come, to be stored.

    `key` is the entry's, None where nothing is cached. `predict` gives a fresh prediction of a sample by its index.
    Types that cannot be stored, and more than `max_bytes`, are not kept.
    """

    name: ClassVar[str] = "recording"

    key: Key | None
    predict: Callable[[int], Any]
    num_samples: int
    max_bytes: int
    known: Sequence[Any] | None = None
    _packer: Packer = field(default_factory=Packer)
    _packed: list[Any] = field(default_factory=list)
    _richest: tuple[int, int] = (-1, 0)  # how much a prediction says, and of which sample

    def update(self, sample_id: str, prediction: Any, target: Any) -> None:  # noqa: ARG002  # as metrics do
        """Keep the prediction of the next sample."""
        begin = len(self._packer.blob)
        if self.key is None or self.known is not None or begin > self.max_bytes:
            return
        try:
            packed = self._packer.pack(prediction)
        except UnstorableError:
            self.key = None
            return
        said = len(self._packer.blob) - begin + len(str(packed))
        self._richest = max(self._richest, (said, len(self._packed)))
        self._packed.append(packed)

    def packed(self) -> tuple[Any, bytes] | None:
        """Give what is to be stored, JSON and bytes; None where not every sample's prediction could be kept.

        A fresh prediction of the sample of which most is said goes with the others, as a witness.
        """
        if not 0 < self.num_samples == len(self._packed):
            return None
        sample = self._richest[1]
        witness = self._packer.pack(self.predict(sample))
        return {"sample": sample, "witness": witness, "predictions": self._packed}, bytes(self._packer.blob)


def replayed(entry: Entry, num_samples: int, predict: Callable[[int], Any]) -> list[Any]:
    """Give the predictions of an entry. Raises `ValueError` where they do not hold, or are not of as many samples.

    Code and data that a run is made of are in its key, but a `postprocess` may read a file that nobody knows of: so one
    sample is predicted anew and compared. It also tells what dataclasses there are: of what else the entry may name,
    nothing is made.
    """
    described = entry.document
    fresh = predict(described["sample"])
    classes = dataclasses_in(fresh)
    if digest(unpack(described["witness"], entry.blob, classes)) != digest(fresh):
        raise ValueError("the predictions are not what they were")
    if len(described["predictions"]) != num_samples:
        raise ValueError("the predictions are not of these samples")
    return [unpack(packed, entry.blob, classes) for packed in described["predictions"]]
