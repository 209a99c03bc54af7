"""What is kept of an unfinished training, so that it can go on."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from qgate.engine.sealed import seal, unseal
from qgate.engine.storable import Packer, unpack
from qgate.errors import ArtifactError
from qgate.files import write_atomically

if TYPE_CHECKING:
    from pathlib import Path

    import torch

    from qgate.engine.cache import Key

__all__ = ["Checkpoint", "Epoch", "State", "packed_state", "unpacked_state"]

_MAGIC = b"qgate-training-1\n"


@dataclass(frozen=True)
class Epoch:
    """What an epoch came to. Losses are means over samples; `loss` is None before the first epoch."""

    epoch: int
    loss: float | None
    validation_loss: float
    seconds: float


@dataclass
class State:
    """A training after `len(curve) - 1` epochs: all that the next one depends on.

    `best` are the averaged weights of `best_epoch`, `averaged` those of now.
    """

    weights: list[torch.Tensor]
    averaged: list[torch.Tensor]
    best: list[torch.Tensor]
    best_epoch: int = 0
    optimizer: dict[str, Any] = field(default_factory=dict)
    curve: list[Epoch] = field(default_factory=list)


def packed_state(state: State) -> tuple[Any, bytes]:
    """Encode a state as JSON and bytes. Raises `UnstorableError`."""
    packer = Packer()
    curve = [vars(epoch) for epoch in state.curve]
    return packer.pack(_on_cpu({**vars(state), "curve": curve})), bytes(packer.blob)


def unpacked_state(document: Any, blob: bytes) -> State:
    """Decode a state. Raises `ValueError`, `TypeError` or `LookupError` for what is none."""
    values = unpack(document, blob, {})
    return State(**{**values, "curve": [Epoch(**epoch) for epoch in values["curve"]]})


@dataclass(frozen=True)
class Checkpoint:
    """A file that holds the last state of a training, under a checksum; `key` says of which one.

    A file of another training, or a damaged one, is none.
    """

    path: Path
    key: Key

    def load(self) -> State | None:
        """Read the state; None where there is none of this training."""
        try:
            described, blob = unseal(_MAGIC, self.path.read_bytes())
            if described["key"] != self.key:
                return None
            return unpacked_state(described["document"], blob)
        except (OSError, ValueError, TypeError, LookupError):
            return None

    def save(self, state: State) -> None:
        """Write the state whole or not at all. Raises `ArtifactError`."""
        document, blob = packed_state(state)
        try:
            write_atomically(self.path, seal(_MAGIC, {"key": self.key, "document": document}, blob))
        except OSError as error:
            raise ArtifactError(
                f"the training's checkpoint cannot be written: {error.strerror or error}; name a folder that can be "
                "written as `artifacts` in [qgate]",
                path=self.path,
            ) from error

    def remove(self) -> None:
        """Remove the file: the training has come to its end."""
        with suppress(OSError):
            self.path.unlink()


def _on_cpu(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _on_cpu(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_on_cpu(item) for item in value)
    return value.cpu() if hasattr(value, "cpu") else value
