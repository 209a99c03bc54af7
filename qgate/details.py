"""What a run keeps for reports beyond its figures: a file beside `results.json`, which names it with its hash."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from qgate import panels
from qgate.results import DetailsFile

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from qgate.panels import Panel
    from qgate.results import ModelResult

__all__ = ["SECTIONS", "Activation", "Details", "LayerRatio", "Layers", "Times", "packed", "read_details"]

# What may be missing, each with a reason.
SECTIONS = ("panels", "layers", "times")

_MAGIC = b"qgate-details-1\n"
_RERUN = "run the gate again"


@dataclass(frozen=True)
class Times:
    """The seconds of each forward pass that the speedup rests on: both float64, shape (passes,)."""

    float32: NDArray[np.float64]
    int8: NDArray[np.float64]


@dataclass(frozen=True)
class LayerRatio:
    """The ratio of a layer's signal to int8's noise on it in dB: by that layer alone, and from the input on."""

    layer: str
    alone: float
    accumulated: float


@dataclass(frozen=True)
class Activation:
    """The values of one layer's output in float32, and the range that its int8 covers.

    `counts` (bins,) counts the values in bins of `width` from `low` on; `clipped` is the share beyond `covered`.
    """

    layer: str
    low: float
    width: float
    counts: NDArray[np.float64]
    covered: tuple[float, float]
    clipped: float


@dataclass(frozen=True)
class Layers:
    """All layers in running order, the outputs of the noisiest, and on how many samples both were seen."""

    num_samples: int
    ratios: tuple[LayerRatio, ...]
    worst: tuple[Activation, ...]


@dataclass(frozen=True)
class Details:
    """What a run found, section by section; `missing` says of each section that is not there why it is not."""

    panels: tuple[Panel, ...] = ()
    layers: Layers | None = None
    times: Times | None = None
    missing: dict[str, str] = field(default_factory=dict)


def packed(details: Details) -> bytes:
    """Give the content of the file."""
    from qgate.engine.sealed import seal
    from qgate.engine.storable import Packer

    packer = Packer()
    document = packer.pack(details)
    return seal(_MAGIC, document, bytes(packer.blob))


def read_details(model: ModelResult, folder: Path | None) -> Details:
    """Read a model's details; paths are relative to `folder`. Where there are none, every section says why."""
    if model.details is None or folder is None:
        return _nothing(f"this run kept no details; {_RERUN}")
    try:
        content = (folder / model.details.path).read_bytes()
    except OSError as error:
        return _nothing(f"the run's details, {model.details.path}, cannot be read: {error.strerror or error}; {_RERUN}")
    if hashlib.sha256(content).hexdigest() != model.details.sha256:
        return _nothing(f"{model.details.path} is not what this run left: it is damaged, or of another run; {_RERUN}")
    try:
        return _unpacked(content)
    except (LookupError, TypeError, ValueError) as error:
        return _nothing(f"{model.details.path} was written by another version of qgate ({error}); {_RERUN}")


def details_file(content: bytes, path: str) -> DetailsFile:
    """Describe the file for `results.json`."""
    return DetailsFile(path, len(content), hashlib.sha256(content).hexdigest())


def _unpacked(content: bytes) -> Details:
    from qgate.engine.sealed import unseal
    from qgate.engine.storable import class_name, unpack

    kinds = [Details, Times, LayerRatio, Activation, Layers]
    kinds += [getattr(panels, name) for name in ("CurvePlot", "Curves", "Gallery", "Line", "Mark", "Picture")]
    document, blob = unseal(_MAGIC, content)
    details = unpack(document, blob, {class_name(kind): kind for kind in kinds})
    if not isinstance(details, Details):
        raise TypeError(f"it holds {type(details).__name__}")
    return details


def _nothing(reason: str) -> Details:
    return Details(missing=dict.fromkeys(SECTIONS, reason))
