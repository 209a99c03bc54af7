"""Decide whether an int8 model may be merged."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

import pluggy

from qgate.errors import QGateError

if TYPE_CHECKING:
    from qgate.engine.artifact import load_artifact
    from qgate.metrics import MeanMetric
    from qgate.protocols import LoadedModel, Sample
    from qgate.quantization.observers import ActivationObserver, StatisticObserver, WeightObserver

__all__ = [
    "ActivationObserver",
    "LoadedModel",
    "MeanMetric",
    "QGateError",
    "Sample",
    "StatisticObserver",
    "WeightObserver",
    "__version__",
    "hookimpl",
    "load_artifact",
]

__version__ = "0.1.0"

hookimpl = pluggy.HookimplMarker("qgate")

# Loaded on first use: `import qgate` must import neither torch nor numpy.
_LAZY = {
    "ActivationObserver": "qgate.quantization.observers",
    "LoadedModel": "qgate.protocols",
    "MeanMetric": "qgate.metrics",
    "Sample": "qgate.protocols",
    "StatisticObserver": "qgate.quantization.observers",
    "WeightObserver": "qgate.quantization.observers",
    "load_artifact": "qgate.engine.artifact",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_LAZY[name]), name)
    globals()[name] = value
    return value
