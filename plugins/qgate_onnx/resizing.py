"""Resizing as torch has it: ONNX has many ways to say of which places of the input a result is made, torch has few."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from qgate.errors import ModelError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from qgate_onnx.node import Node

__all__ = ["resized"]

_WITH_COORDINATES = 11  # the opset; before it, every resizing was asymmetric
_KINDS: dict[tuple[str, int], str] = {  # torch's modes, by ONNX's and by rank
    **{("nearest", rank): "nearest" for rank in (3, 4, 5)},
    **{("linear", rank): kind for rank, kind in ((3, "linear"), (4, "bilinear"), (5, "trilinear"))},
    ("cubic", 4): "bicubic",
}
_PLAIN = {  # what torch has not, unless it is this
    "antialias": 0,
    "exclude_outside": 0,
    "axes": None,
    "keep_aspect_ratio_policy": "stretch",
    "cubic_coeff_a": -0.75,
}
_COORDINATES: dict[str, Any] = {
    "asymmetric": lambda places, axis: places / axis.scale,
    "half_pixel": lambda places, axis: (places + 0.5) / axis.scale - 0.5,
    "pytorch_half_pixel": lambda places, axis: (places + 0.5) / axis.scale - 0.5 if axis.made > 1 else places,
    "align_corners": lambda places, axis: places * (axis.given - 1) / max(axis.made - 1, 1),
}
_ROUNDINGS: dict[str, Any] = {
    "floor": np.floor,
    "ceil": np.ceil,
    "round_prefer_floor": lambda places: np.ceil(places - 0.5),
    "round_prefer_ceil": lambda places: np.floor(places + 0.5),
}


@dataclass(frozen=True)
class _Axis:
    given: int
    made: int
    scale: np.float32


def resized(node: Node) -> Any:
    """Resize by the form of torch that takes the model's places. Raises `ModelError` where there is none."""
    mode, how = node.get("mode", "nearest"), "asymmetric"
    if node.opset >= _WITH_COORDINATES:
        how = node.get("coordinate_transformation_mode", "half_pixel")
    other = [name for name, plain in _PLAIN.items() if node.get(name, plain) != plain]
    kind = _KINDS.get((mode, len(node.shape())))
    if kind is None or other or how not in _COORDINATES:
        raise ModelError(f'resizes by "{mode}", "{how}"{"".join(f", {name}" for name in other)}, which torch does not')
    corners = {} if mode == "nearest" else {"align_corners": how == "align_corners"}
    axes, ways = _axes(node)
    said = [_places(node, axis, mode, how) for axis in axes]
    for way, values in ways.items():
        taken = [_taken(axis, **{way: value}, **corners) for axis, value in zip(axes, values, strict=True)]
        if all(map(_agree, said, taken)):
            chosen: dict[str, Any] = {way: values, "mode": kind, **corners}
            return node.module(nn.Upsample(**chosen))
    raise ModelError(f'resizes by "{mode}", "{how}", and takes other places than torch')


def _axes(node: Node) -> tuple[list[_Axis], dict[str, tuple[Any, ...]]]:
    """Give the axes behind the channels, and how torch may be told what is made of them."""
    given = node.shape()
    scales = node.get("scales", None, 2 if node.opset >= _WITH_COORDINATES else 1)
    made = node.get("sizes", None, 3)
    if not scales and not made:
        raise ModelError("has neither scales nor sizes")
    factors = np.array(scales or np.divide(made, given), np.float32)
    made = made or np.floor(factors * np.array(given, np.float32)).astype(int).tolist()
    if made[:2] != list(given[:2]) or not all(made):
        raise ModelError(f"makes {made} of {list(given)}; expected the same batch and channels, and no length of 0")
    axes = [_Axis(*of) for of in zip(given[2:], made[2:], factors[2:], strict=True)]
    ways: dict[str, tuple[Any, ...]] = {"size": tuple(made[2:])}
    if scales and all(int(axis.given * float(axis.scale)) == axis.made for axis in axes):  # torch's length, in float64
        ways = {"scale_factor": tuple(factors[2:].tolist()), **ways}
    return axes, ways


def _places(node: Node, axis: _Axis, mode: str, how: str) -> NDArray[np.float32]:
    """Give of which places along an axis the results are made, as ONNX Runtime computes them."""
    places: NDArray[np.float32] = _COORDINATES[how](np.arange(axis.made, dtype=np.float32), axis)
    if mode == "nearest":
        places = _ROUNDINGS[_rounding(node, axis)](places)
    return places.clip(0, axis.given - 1)


def _rounding(node: Node, axis: _Axis) -> str:
    if node.opset >= _WITH_COORDINATES:
        return str(node.get("nearest_mode", "round_prefer_floor"))
    return "floor" if axis.scale >= 1 else "ceil"


def _taken(axis: _Axis, **how: Any) -> NDArray[np.float32]:
    """Give of which places torch makes the results: a line's values are their places."""
    mode = "linear" if "align_corners" in how else "nearest"
    line = torch.arange(axis.given, dtype=torch.float32)[None, None]
    found: NDArray[np.float32] = functional.interpolate(line, mode=mode, **how)[0, 0].numpy()
    return found


def _agree(some: NDArray[np.float32], others: NDArray[np.float32]) -> bool:
    return some.shape == others.shape and np.allclose(some, others, atol=1e-4)
