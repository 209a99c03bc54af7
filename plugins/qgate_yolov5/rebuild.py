"""Turns stored modules of a checkpoint back into working ones, by a table of what is known."""

from __future__ import annotations

import reprlib
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from qgate.errors import ModelError
from qgate_yolov5 import blocks

if TYPE_CHECKING:
    from collections.abc import Mapping

    from qgate_yolov5.unpickling import Stored

_BLOCKS: dict[str, type[blocks.Block]] = {
    block.__name__: block
    for block in (
        blocks.Bottleneck,
        blocks.BottleneckCSP,
        blocks.C3,
        blocks.C3Ghost,
        blocks.C3SPP,
        blocks.C3TR,
        blocks.Concat,
        blocks.Conv,
        blocks.DWConv,
        blocks.Detect,
        blocks.Focus,
        blocks.GhostBottleneck,
        blocks.GhostConv,
        blocks.Proto,
        blocks.SPP,
        blocks.SPPF,
        blocks.Segment,
        blocks.TransformerBlock,
        blocks.TransformerLayer,
    )
}

# torch's own modules, and the attributes that are arguments of their constructors. One that an old torch did not
# yet have, or a new one no longer has, keeps its default.
_LEAVES: dict[type[nn.Module], tuple[str, ...]] = {
    nn.BatchNorm2d: ("num_features", "eps", "momentum", "affine", "track_running_stats"),
    nn.Conv2d: (
        "in_channels",
        "out_channels",
        "kernel_size",
        "stride",
        "padding",
        "dilation",
        "groups",
        "padding_mode",
    ),
    nn.ELU: ("alpha", "inplace"),
    nn.GELU: ("approximate",),
    nn.Hardswish: ("inplace",),
    nn.Identity: (),
    nn.LeakyReLU: ("negative_slope", "inplace"),
    nn.Linear: ("in_features", "out_features"),
    nn.MaxPool2d: ("kernel_size", "stride", "padding", "dilation", "ceil_mode"),
    nn.Mish: ("inplace",),
    nn.PReLU: ("num_parameters",),
    nn.MultiheadAttention: ("embed_dim", "num_heads", "dropout", "batch_first"),
    nn.ReLU: ("inplace",),
    nn.ReLU6: ("inplace",),
    nn.SiLU: ("inplace",),
    nn.Upsample: ("size", "scale_factor", "mode", "align_corners"),
    nn.ZeroPad2d: ("padding",),
}
_LEAVES_BY_NAME = {leaf.__name__: leaf for leaf in _LEAVES}
_WITH_BIAS: dict[type[nn.Module], str] = {
    nn.Conv2d: "bias",
    nn.Linear: "bias",
    nn.MultiheadAttention: "in_proj_bias",
}
_CONTAINERS: dict[str, type[nn.Sequential | nn.ModuleList]] = {
    "ModuleList": nn.ModuleList,
    "Sequential": nn.Sequential,
}

# What sets the size of maps. A damaged one could ask for more memory than there is; YOLOv5's largest is 13.
_SPATIAL = ("kernel_size", "stride", "padding", "dilation", "scale_factor")
_LARGEST_STEP = 32

_MAX_DEPTH = 16


def rebuild(stored: Stored, name: str, depth: int = 0) -> nn.Module:
    """Rebuild a stored module with its own hyper-parameters, on the meta device: its tensors are not filled.

    `name` is the module's name in the network, for errors. Raises `ModelError` on a module that is not known, or
    whose stored hyper-parameters make no sense.
    """
    if depth > _MAX_DEPTH:
        raise ModelError(f"damaged: modules are nested more than {_MAX_DEPTH} deep at {name[:60]}")
    is_torch = stored.kind.startswith("torch.nn.modules.")
    if is_torch and stored.class_name in _LEAVES_BY_NAME:
        return _leaf(stored, name)
    parts = {key: rebuild(child, f"{name}.{key}", depth + 1) for key, child in stored.children().items()}
    if is_torch and stored.class_name in _CONTAINERS:
        return _CONTAINERS[stored.class_name]().extend(parts.values())
    if not is_torch and stored.class_name in _BLOCKS:
        return _block(stored, parts, name)
    raise ModelError(f'{name} is a {stored.kind}, which is no block of YOLOv5 v5.0-v7.0; use loader = "factory"')


def _leaf(stored: Stored, name: str) -> nn.Module:
    leaf = _LEAVES_BY_NAME[stored.class_name]
    arguments: dict[str, Any] = {key: stored.get(key) for key in _LEAVES[leaf] if stored.get(key) is not None}
    if leaf in _WITH_BIAS:
        arguments["bias"] = (stored.get("_parameters") or {}).get(_WITH_BIAS[leaf]) is not None
    try:
        _check_spatial(arguments)
        with torch.device("meta"):
            return leaf(**arguments)
    except Exception as error:  # damaged arguments may raise anything
        raise ModelError(f"damaged: {name} is a {leaf.__name__} that cannot be ({error})") from error


def _check_spatial(arguments: Mapping[str, Any]) -> None:
    for key in _SPATIAL:
        value = arguments.get(key, 1)
        if max(value if isinstance(value, tuple) else (value,)) > _LARGEST_STEP:
            raise ValueError(f"{key} is {reprlib.repr(value)}")


def _block(stored: Stored, parts: dict[str, nn.Module], name: str) -> blocks.Block:
    block = _BLOCKS[stored.class_name]
    if set(parts) != set(block.parts):
        raise ModelError(
            f"{name} is a {stored.kind} of {', '.join(sorted(parts)) or 'nothing'}; expected {', '.join(block.parts)}, "
            "as they are before fusing"
        )
    settings = {key: stored.get(key) for key in block.settings}
    for key, kind in block.settings.items():
        if not isinstance(settings[key], kind):
            raise ModelError(f"damaged: {name}.{key} is {reprlib.repr(settings[key])}; expected a {kind.__name__}")
    return block.from_parts(parts, settings)
