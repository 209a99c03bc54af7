"""YOLOv5 checkpoints: those that YOLOv5's own code writes, and the plain ones that this plugin writes."""

from __future__ import annotations

import hashlib
import io
import reprlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from qgate.errors import ModelError
from qgate.files import write_atomically
from qgate_yolov5.unpickling import Stored, unpickle

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from qgate_yolov5.network import YoloV5

_FORMAT = "qgate-yolov5"
_ZIP_MAGIC = b"PK\x03\x04"
_LEGACY_MAGIC = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19\x2e"
_MODEL_CLASSES = {"models.yolo.Model", "models.yolo.DetectionModel", "models.yolo.SegmentationModel"}
_HEADS = {"models.yolo.Detect", "models.yolo.Segment"}
_EXPECTED = "expected a YOLOv5 model of detection or segmentation"


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint file holds.

    `anchors` has shape (levels, anchors, 2), width and height in units of the level's stride; `strides` are in
    pixels. `state_dict` is float32 (counters stay integers), under YOLOv5's own names. `layers` are the stored
    modules of the network; None in a plain checkpoint, whose `yaml` describes the network. `training_size` is
    the side in pixels of the images it was trained on, as the user gave it; None where the file does not say.
    """

    path: Path
    sha256: str
    names: tuple[str, ...]
    anchors: torch.Tensor
    strides: tuple[int, ...]
    yaml: Mapping[str, Any]
    state_dict: Mapping[str, torch.Tensor]
    layers: tuple[Stored, ...] | None
    training_size: int | None = None


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint of YOLOv5 v5.0-v7.0 for detection or segmentation, or a plain one. Nothing in it is executed.

    Raises `ModelError` that names the file: it is missing, damaged, not YOLOv5, or names what could run a command.
    """
    content = _read_file(path)
    try:
        document = unpickle(content)
        parse = _parse_plain if _is_plain(document) else _parse_pickled
        return Checkpoint(path=path, sha256=hashlib.sha256(content).hexdigest(), **parse(document))
    except ModelError as error:
        raise ModelError(error.message, path=path) from error


def save_checkpoint(path: Path, network: YoloV5, *, yaml: Mapping[str, Any], names: Sequence[str]) -> None:
    """Write a plain checkpoint, atomically: tensors, lists and strings only, so that any safe reader reads it.

    `yaml` is what `network` was built from, and `names` are its class names.
    """
    document = {
        "format": _FORMAT,
        "yaml": dict(yaml),
        "names": list(names),
        "state_dict": dict(network.state_dict()),
        "stride": list(network.strides),
        "anchors": network.anchors,
    }
    buffer = io.BytesIO()
    torch.save(document, buffer)
    write_atomically(path, buffer.getvalue())


def _read_file(path: Path) -> bytes:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ModelError(f"cannot be read ({error.strerror}); expected a YOLOv5 checkpoint", path=path) from None
    if not content:
        raise ModelError("an empty file; expected a YOLOv5 checkpoint", path=path)
    if content.startswith(_LEGACY_MAGIC):
        raise ModelError("in torch's format from before 1.6; save it again with a later torch", path=path)
    if not content.startswith(_ZIP_MAGIC):
        raise ModelError("not a file that torch.save wrote; expected a YOLOv5 checkpoint", path=path)
    return content


def _is_plain(document: Any) -> bool:
    return isinstance(document, dict) and document.get("format") == _FORMAT


def _parse_plain(document: dict[str, Any]) -> dict[str, Any]:
    missing = {"yaml", "names", "state_dict", "stride", "anchors"} - document.keys()
    if missing:
        raise ModelError(f"a {_FORMAT} checkpoint without {', '.join(sorted(missing))}")
    state_dict, yaml = document["state_dict"], document["yaml"]
    if not isinstance(state_dict, dict) or not isinstance(yaml, dict):
        raise ModelError(f"a {_FORMAT} checkpoint whose state_dict or yaml is not a dict")
    return {
        "names": _names(document["names"]),
        **_levels(document["anchors"], document["stride"]),
        "yaml": yaml,
        "state_dict": _as_float32(state_dict),
        "layers": None,
    }


def _parse_pickled(document: Any) -> dict[str, Any]:
    model = _network(document)
    layers = tuple(model.children()["model"].children().values())
    tensors = dict(model.tensors())
    anchors = tensors.pop(f"model.{len(layers) - 1}.anchors", None)
    tensors.pop(f"model.{len(layers) - 1}.anchor_grid", None)  # v5.0; the same in pixels
    return {
        "names": _names(model.get("names")),
        **_levels(anchors, layers[-1].get("stride")),
        "yaml": yaml if isinstance(yaml := model.get("yaml"), dict) else {},
        "state_dict": _as_float32(tensors),
        "layers": layers,
        "training_size": _training_size(document.get("opt")),
    }


def _training_size(options: Any) -> int | None:
    """Read the image size from the options of train.py: `imgsz`, in v5.0 `img_size` for training and for testing."""
    values = options.state if isinstance(options, Stored) else options
    if not isinstance(values, dict):
        return None
    size = values.get("imgsz", values.get("img_size"))
    if isinstance(size, list) and size:
        size = size[0]
    return size if isinstance(size, int) and size > 0 else None


def _network(document: Any) -> Stored:
    """Find the network: `ema`, where there is one, is what YOLOv5 evaluates."""
    if not isinstance(document, dict):
        raise ModelError(f"holds a {type(document).__name__}, not the dict that YOLOv5's train.py saves")
    model = document.get("model") if document.get("ema") is None else document["ema"]
    if not isinstance(model, Stored):
        raise ModelError(
            'holds no network under "ema" or "model"; a state_dict alone is not a YOLOv5 checkpoint; '
            "use the file that train.py saved"
        )
    if model.kind not in _MODEL_CLASSES or "model" not in model.children():
        raise ModelError(f"holds a {model.kind}; {_EXPECTED} (models.yolo.DetectionModel or SegmentationModel)")
    layers = list(model.children()["model"].children().values())
    if not layers or layers[-1].kind not in _HEADS:
        last = layers[-1].kind if layers else "nothing"
        raise ModelError(f"its network ends in {last}; {_EXPECTED}, which ends in Detect or Segment")
    return model


def _names(stored: Any) -> tuple[str, ...]:
    """Read class names: a list, or a dict by class index as v7.0 writes it."""
    if isinstance(stored, dict) and set(stored) == set(range(len(stored))):
        stored = [stored[index] for index in range(len(stored))]
    if not isinstance(stored, list | tuple) or not stored or not all(isinstance(n, str | int | float) for n in stored):
        raise ModelError("holds no class names; expected a list, or a dict by class index from 0 on")
    return tuple(str(name) for name in stored)


def _levels(anchors: Any, strides: Any) -> dict[str, Any]:
    anchors, strides = _anchors(anchors), _strides(strides)
    if len(anchors) != len(strides):
        raise ModelError(f"holds anchors of {len(anchors)} levels, but {len(strides)} strides")
    return {"anchors": anchors, "strides": strides}


def _anchors(stored: Any) -> torch.Tensor:
    if not isinstance(stored, torch.Tensor) or stored.dim() != 3 or stored.shape[2] != 2:  # noqa: PLR2004 - as said below
        raise ModelError("holds no anchors of shape (levels, anchors, 2)")
    if not bool((stored > 0).all() and stored.isfinite().all()):
        raise ModelError("holds anchors that are no sizes; expected numbers above 0")
    return _own_copy(stored)


def _strides(stored: Any) -> tuple[int, ...]:
    values = stored.tolist() if isinstance(stored, torch.Tensor) else stored
    whole = isinstance(values, list) and all(isinstance(v, int | float) and float(v).is_integer() for v in values)
    if not whole or not values or min(values) < 1:
        raise ModelError(f"holds no strides of its levels, but {reprlib.repr(values)}")
    return tuple(int(value) for value in values)


def _as_float32(tensors: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    for name, tensor in tensors.items():
        if not isinstance(name, str) or not isinstance(tensor, torch.Tensor):
            raise ModelError(f"holds {reprlib.repr(name)} in its state_dict, which is not a tensor under a name")
        if not bool(tensor.isfinite().all()):
            raise ModelError(f"{name} holds NaN or infinity; the training diverged, or the file is damaged")
    return {name: _own_copy(tensor) for name, tensor in tensors.items()}


def _own_copy(tensor: torch.Tensor) -> torch.Tensor:
    """Copy a tensor out of the storage that it may share with others."""
    dtype = torch.float32 if tensor.is_floating_point() else tensor.dtype
    return tensor.detach().to(dtype, copy=True).contiguous()
