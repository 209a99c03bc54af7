"""The text of a `qgate.toml` to begin with, from what the plugins recognise."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qgate.config.document import OWN_MODEL, shown
from qgate.config.reader import NUM_SAMPLES
from qgate.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from qgate.plugins import Registry

_TEMPLATE = """\
# Which int8 model may be merged: `qgate check` or `pytest --qgate` judges every limit below.
# Paths are relative to this file.
schema_version = 1

# How the model is loaded: compare with how it was trained.
[models.{name}]
{model}

[models.{name}.data]
{data}

{backend}

{thresholds}

[models.{name}.thresholds.size_reduction]
# 1 - int8 bytes / float32 bytes. Where all weights become int8, 0.72 to 0.75.
lower_bound = 0.70

[models.{name}.thresholds.speedup]
# float32 time / int8 time. Raise the limit once you have seen your own figure.
lower_bound = 1.2
"""

_FUSED = """\
[models.{name}.quantization]
# The fastest kernels that torch has for this CPU: a layer, its activation and its quantization in one.
backend = "fused"

[models.{name}.timing]
# What int8 is compared with: the best of float32's forms on this machine.
baseline_form = "fastest"
"""

_FBGEMM = """\
[models.{name}.quantization]
# Runs on every x86 CPU; "fused", which is faster, does not run here: {reason}.
backend = "fbgemm"

[models.{name}.timing]
# What int8 is compared with. "fastest" is the strictest, the best of float32's forms on this machine, over which
# "fbgemm" gains little.
baseline_form = "eager"
"""

_SAME_SAMPLES = """\
# Only one set was found, so it serves twice. Calibration samples should not be evaluation samples: the int8 model
# looks better on what it was calibrated on. Name training data in `calibration` as soon as you can.
"""

_PROVABLE = """\
# What {count} evaluation samples can settle: about 0.25 / sqrt({count}), in whole hundredths. With more, ask for less.
"""

_MAX_DROP = """\
# max_drop is for float32's value minus int8's. It is held where the drop's whole confidence interval is within. Few
# samples make a wide one; where the limit lies inside, the verdict is "inconclusive" and says how many would settle it.
# That fails the build, unless you write `on_inconclusive = "warn"` into [qgate].
"""


def propose(weights: Path, data: Path, folder: Path, registry: Registry) -> str:
    """Write a commented `qgate.toml` that is to stand in `folder`.

    Raises `ConfigError` where a file is missing, or no plugin recognises it.
    """
    model = _model(_existing(weights, "--weights"), registry)
    found = registry.propose("qgate_propose_data", _existing(data, "--data"))
    name = re.sub(r"[^\w.+-]+", "-", weights.stem).lstrip(".+-") or "model"
    quoted = name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else _string(name)
    return _TEMPLATE.format(
        name=quoted,
        model="\n".join(_pairs(model, folder)),
        data=_data(found["data"], folder),
        backend=_backend(quoted, registry).rstrip(),
        thresholds="\n\n".join(_thresholds(quoted, found, folder)),
    )


def _model(weights: Path, registry: Registry) -> Mapping[str, Any]:
    try:
        return registry.propose("qgate_propose_model", weights)
    except ConfigError as error:
        raise ConfigError(f"{error.message}; {OWN_MODEL}", path=error.path) from error


def _backend(name: str, registry: Registry) -> str:
    reason = registry.backends.get("fused")().is_available()
    return _FBGEMM.format(name=name, reason=reason) if reason else _FUSED.format(name=name)


def _existing(path: Path, option: str) -> Path:
    if not path.exists():
        raise ConfigError(f"there is no such file or folder; {option} must name one", path=shown(path))
    return path


def _data(data: Mapping[str, Any], folder: Path) -> str:
    remark = _SAME_SAMPLES if data["calibration"] == data["evaluation"] else ""
    calibration = {**data["calibration"], NUM_SAMPLES.name: NUM_SAMPLES.default}
    first, *others = _pairs({**data, "calibration": calibration}, folder)
    return "\n".join((first, remark + others[0], *others[1:]))


def _thresholds(name: str, found: Mapping[str, Any], folder: Path) -> Iterator[str]:
    count = found.get("num_evaluation_samples")
    max_drop = _MAX_DROP + (_PROVABLE.format(count=count) if count else "")
    for metric, limits in found["thresholds"].items():
        remark = max_drop if "max_drop" in limits else ""
        yield f"[models.{name}.thresholds.{metric}]\n{remark}" + "\n".join(_pairs(limits, folder))


def _pairs(table: Mapping[str, Any], folder: Path) -> list[str]:
    return [f"{key} = {_value(value, folder)}" for key, value in table.items()]


def _value(value: Any, folder: Path) -> str:
    """Write a value as TOML, a path relative to `folder`."""
    if isinstance(value, Path):
        return _string(_relative(value.absolute(), folder.absolute()))
    if isinstance(value, dict):
        return f"{{ {', '.join(_pairs(value, folder))} }}"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(_value(item, folder) for item in value)}]"
    return _string(value) if isinstance(value, str) else json.dumps(value)


def _relative(path: Path, folder: Path) -> str:
    try:
        return Path(os.path.relpath(path, folder)).as_posix()
    except ValueError:  # another drive
        return path.as_posix()


def _string(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
