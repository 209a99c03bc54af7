"""What a result depends on beside the int8 model: the evaluation data and the evaluator's settings, as hashes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence, Set
from dataclasses import asdict, fields, is_dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import torch

__all__ = ["digest", "evaluator_settings", "relevant", "weights_sha256"]

# Keys of configurations that say where something is said, or what nothing depends on before limits are judged.
_IRRELEVANT = ("place", "limit_places", "fallback", "rounding_seconds")


def digest(value: Any) -> str:
    """Hash a target or a setting, SHA-256: equal content, equal digest, on every machine.

    Arrays and tensors count by type, shape and values; dataclasses and other objects by their fields.
    """
    return hashlib.sha256(_canonical(value)).hexdigest()


def _canonical(value: Any) -> bytes:
    if hasattr(value, "detach"):  # a tensor; this module does not need torch
        value = value.detach().cpu().numpy()
    if hasattr(value, "__array_interface__"):  # what Pillow gives, say
        value = np.asarray(value)
    if isinstance(value, np.ndarray) and value.dtype != object:
        return _frame(f"{value.dtype.str}{value.shape}", np.ascontiguousarray(value).tobytes())
    if isinstance(value, str | bytes | bytearray | int | float | None | Path | Enum):
        return _frame(type(value).__name__, str(value).encode())
    return _frame(type(value).__name__, *_parts(value))


def _parts(value: Any) -> list[bytes]:
    if isinstance(value, Mapping):
        return sorted(_frame("", _canonical(key), _canonical(item)) for key, item in value.items())
    if isinstance(value, Set):
        return sorted(map(_canonical, value))
    if isinstance(value, Sequence | np.ndarray):
        return [_canonical(item) for item in value]
    if is_dataclass(value):
        return [_canonical(getattr(value, item.name)) for item in fields(value)]
    return [_canonical(vars(value))] if hasattr(value, "__dict__") else [repr(value).encode()]


def _frame(kind: str, *parts: bytes) -> bytes:
    """Join parts so that no other parts give the same bytes."""
    return b"".join([b"%d:" % len(part) + part for part in (kind.encode(), *parts)])


def evaluator_settings(options: Any) -> dict[str, Any]:
    """Give what a loader's options say about how predictions are made: all of them but paths to files."""
    settings = {name: value for name, value in asdict(options).items() if not isinstance(value, Path)}
    plain: dict[str, Any] = json.loads(json.dumps(settings, default=_plain))  # as a file would give it back
    return plain


def _plain(value: Any) -> str | None:
    return None if isinstance(value, Path) else str(value)


def relevant(config: Any) -> Any:
    """Give what a part of the configuration says, without where it says it. Of plugins' options, all is relevant."""
    if is_dataclass(config) and not isinstance(config, type):
        dropped = _IRRELEVANT if type(config).__module__ == "qgate.config.model" else ()
        kept = [item.name for item in fields(config) if item.name not in dropped]
        return {name: relevant(getattr(config, name)) for name in kept}
    if isinstance(config, dict):
        return {key: relevant(item) for key, item in config.items()}
    return [relevant(item) for item in config] if isinstance(config, list | tuple) else config


def weights_sha256(module: torch.nn.Module) -> str:
    """Hash a module's structure, its parameters and buffers."""
    import torch

    sha256 = hashlib.sha256(repr(module).encode())
    for name, value in (*module.named_parameters(), *module.named_buffers()):
        sha256.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        sha256.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return sha256.hexdigest()
