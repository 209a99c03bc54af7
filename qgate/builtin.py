"""What the core itself registers, by the hooks that every plugin has."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qgate import hookimpl

if TYPE_CHECKING:
    from qgate.protocols import Backend, Dataset, Exporter, Loader, Reporter
    from qgate.quantization.observers import Observer


@hookimpl
def qgate_register_loaders() -> tuple[type[Loader], ...]:
    """Register `factory`."""
    from qgate.engine.factory import FactoryLoader

    return (FactoryLoader,)


@hookimpl
def qgate_register_datasets() -> tuple[type[Dataset], ...]:
    """Register `factory`."""
    from qgate.engine.factory import FactoryDataset

    return (FactoryDataset,)


@hookimpl
def qgate_register_observers() -> tuple[type[Observer], ...]:
    """Register the observers of activations and of weights that every recipe may name."""
    from qgate.quantization.observers import (
        HistogramObserver,
        MinMaxObserver,
        MovingAverageObserver,
        PerChannelMinMaxObserver,
        PerTensorMinMaxObserver,
    )

    return (
        HistogramObserver,
        MinMaxObserver,
        MovingAverageObserver,
        PerChannelMinMaxObserver,
        PerTensorMinMaxObserver,
    )


@hookimpl
def qgate_register_backends() -> tuple[type[Backend], ...]:
    """Register torch's own engines, and the fused kernels."""
    from qgate.quantization.backends import FbgemmBackend, OnednnBackend, X86Backend
    from qgate.quantization.fused import FusedBackend

    return (FbgemmBackend, X86Backend, OnednnBackend, FusedBackend)


@hookimpl
def qgate_register_exporters() -> tuple[type[Exporter], ...]:
    """Register `torchscript`."""
    from qgate.quantization.torchscript import TorchScriptExporter

    return (TorchScriptExporter,)


@hookimpl
def qgate_register_reporters() -> tuple[type[Reporter], ...]:
    """Register `json`, `markdown`, `gitlab` and `html`."""
    from qgate.reporting.gitlab import GitlabReporter
    from qgate.reporting.html.reporter import HtmlReporter
    from qgate.reporting.json_reporter import JsonReporter
    from qgate.reporting.markdown import MarkdownReporter

    return (JsonReporter, MarkdownReporter, GitlabReporter, HtmlReporter)
