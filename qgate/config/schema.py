"""The JSON schema of `qgate.toml`, made from the same dataclasses that the reader binds to.

`python -m qgate.config.schema` writes the file that ships. Keys that plugins own ([models.X], splits, observers)
are open in it; the reader knows better.
"""

from __future__ import annotations

import json
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from qgate.config.binder import REQUIRED, Key, keys_of
from qgate.config.model import (
    CORE_METRICS,
    SCHEMA_VERSION,
    ExecutorConfig,
    QuantizationConfig,
    Settings,
    TimingConfig,
    TrainingConfig,
)
from qgate.config.reader import MAX_OVERLAP, MODEL_NAME, NUM_SAMPLES
from qgate.config.recipe import REDUCE_RANGE
from qgate.config.thresholds import DROP_TYPE, MIN_SAMPLES, WHERE, limits
from qgate.config.words import is_union
from qgate.files import write_atomically

SCHEMA_PATH = Path(__file__).with_name("schema.json")

_TYPES: dict[Any, dict[str, Any]] = {
    str: {"type": "string"},
    int: {"type": "integer"},
    float: {"type": "number"},
    bool: {"type": "boolean"},
    Path: {"type": "string"},
}
_STRING = _TYPES[str]


def schema() -> dict[str, Any]:
    """Give the schema (draft 2020-12)."""
    models = {
        "type": "object",
        "minProperties": 1,
        "propertyNames": {"pattern": f"^{MODEL_NAME}$"},
        "additionalProperties": _model(),
    }
    qgate = _table(key for key in keys_of(Settings) if key.name != "executor")
    qgate["properties"]["executor"] = _object({"name": {**_STRING, "default": ExecutorConfig.name}}, closed=False)
    version = {"const": SCHEMA_VERSION}
    root = _object({"schema_version": version, "qgate": qgate, "models": models}, ("schema_version", "models"))
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "qgate.toml", **root}


def _model() -> dict[str, Any]:
    properties = {
        "loader": _STRING,
        "data": _data(),
        "quantization": _quantization(),
        "timing": _table(keys_of(TimingConfig)),
        "thresholds": _thresholds(),
    }
    return _object(properties, ("loader", "data", "thresholds"), closed=False)


def _data() -> dict[str, Any]:
    split = _object({"format": _STRING}, closed=False)
    calibration = _object({"format": _STRING, NUM_SAMPLES.name: _key(NUM_SAMPLES)}, closed=False)
    splits = {"calibration": calibration, "evaluation": split, "train": split}
    properties = {"format": _STRING, MAX_OVERLAP.name: _key(MAX_OVERLAP), **splits}
    return _object(properties, ("calibration", "evaluation"))


def _quantization() -> dict[str, Any]:
    # `place` is not the file's, and `reduce_range` stands in the table of activations.
    elsewhere = ("place", "activation", "weight", "reduce_range", "training")
    table = _table(key for key in keys_of(QuantizationConfig) if key.name not in elsewhere)
    activation = _object({"observer": _STRING, REDUCE_RANGE.name: _key(REDUCE_RANGE)}, closed=False)
    training = _table(key for key in keys_of(TrainingConfig) if key.name not in ("augment", "place"))
    training["properties"]["augment"] = _object({}, closed=False)
    weight = _object({"observer": _STRING}, closed=False)
    table["properties"] |= {"activation": activation, "weight": weight, "training": training}
    return table


def _thresholds() -> dict[str, Any]:
    higher, lower = (limits(core=False, higher_is_better=higher) for higher in (True, False))
    return {
        "type": "object",
        "minProperties": 1,
        "properties": dict.fromkeys(CORE_METRICS, _threshold(limits(core=True))),
        "additionalProperties": _with_slices(tuple(dict.fromkeys((*higher, *lower)))),
    }


def _with_slices(names: tuple[str, ...]) -> dict[str, Any]:
    table, each = _threshold(names, DROP_TYPE), _threshold(names, DROP_TYPE, WHERE, MIN_SAMPLES)
    table["properties"]["slices"] = {"type": "array", "minItems": 1, "items": each}
    table["anyOf"].append({"required": ["slices"]})
    return table


def _threshold(names: tuple[str, ...], *others: Key) -> dict[str, Any]:
    table = _table([*(Key(name, float, None) for name in names), *others])
    return table | {"anyOf": [{"required": [name]} for name in names]}


def _table(keys: Any) -> dict[str, Any]:
    keys = tuple(keys)
    required = tuple(key.name for key in keys if key.default is REQUIRED)
    return _object({key.name: _key(key) for key in keys}, required)


def _object(properties: dict[str, Any], required: tuple[str, ...] = (), *, closed: bool = True) -> dict[str, Any]:
    demanded = {"required": list(required)} if required else {}
    return {"type": "object", "properties": properties, **demanded, "additionalProperties": not closed}


def _key(key: Key) -> dict[str, Any]:
    default = {} if key.default in (REQUIRED, None) or is_dataclass(key.default) else {"default": _plain(key.default)}
    return {**_type(key.type), **key.bounds, **default}


def _type(annotation: Any) -> dict[str, Any]:
    if get_origin(annotation) is Literal:
        return {"enum": list(get_args(annotation))}
    if is_union(annotation):
        return {"anyOf": [_type(option) for option in get_args(annotation)]}
    if get_origin(annotation) is dict:
        return {"type": "object", "minProperties": 1, "additionalProperties": _type(get_args(annotation)[1])}
    if isinstance(annotation, type) and is_dataclass(annotation):
        return _table(keys_of(annotation))
    if get_origin(annotation) is tuple:
        return {"type": "array", "items": _type(get_args(annotation)[0])}
    return _TYPES[annotation]


def _plain(default: Any) -> Any:
    if isinstance(default, Path):
        return default.as_posix()
    return list(default) if isinstance(default, tuple) else default


if __name__ == "__main__":
    write_atomically(SCHEMA_PATH, (json.dumps(schema(), indent=2) + "\n").encode())
