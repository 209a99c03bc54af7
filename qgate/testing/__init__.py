"""For plugin authors: conformance suites to subclass, and fixtures (`pytest_plugins = ["qgate.testing.fixtures"]`).

A suite has a test for each rule of a protocol: `class TestMine(qgate.testing.MetricConformance): metric = Mine`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from qgate.testing.backends import BackendConformance
    from qgate.testing.calibrators import CalibratorConformance
    from qgate.testing.conformance import BrokenRuleError, Conformance, expect, rule
    from qgate.testing.datasets import DatasetConformance
    from qgate.testing.loaders import LoaderConformance
    from qgate.testing.metrics import MetricConformance
    from qgate.testing.observers import ObserverConformance
    from qgate.testing.reporters import ReporterConformance

__all__ = [
    "BackendConformance",
    "BrokenRuleError",
    "CalibratorConformance",
    "Conformance",
    "DatasetConformance",
    "LoaderConformance",
    "MetricConformance",
    "ObserverConformance",
    "ReporterConformance",
    "expect",
    "rule",
]

# Loaded on first use: a plugin of metrics need not wait for torch.
_LAZY = {
    "BackendConformance": "backends",
    "BrokenRuleError": "conformance",
    "CalibratorConformance": "calibrators",
    "Conformance": "conformance",
    "DatasetConformance": "datasets",
    "LoaderConformance": "loaders",
    "MetricConformance": "metrics",
    "ObserverConformance": "observers",
    "ReporterConformance": "reporters",
    "expect": "conformance",
    "rule": "conformance",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"qgate.testing.{_LAZY[name]}"), name)
