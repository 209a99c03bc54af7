"""ONNX for qgate: an exporter, a loader, and the runtimes that judge what is exported."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qgate import hookimpl

if TYPE_CHECKING:
    from qgate.protocols import Backend, Exporter, Loader


@hookimpl
def qgate_register_exporters() -> list[type[Exporter]]:
    """Provide `qgate export --format onnx`."""
    from qgate_onnx.exporter import OnnxExporter

    return [OnnxExporter]


@hookimpl
def qgate_register_backends() -> list[type[Backend]]:
    """Provide `backend = "onnxruntime"` and `backend = "openvino"`."""
    from qgate_onnx.onnxruntime_backend import OnnxRuntimeBackend
    from qgate_onnx.openvino_backend import OpenVinoBackend

    return [OnnxRuntimeBackend, OpenVinoBackend]


@hookimpl
def qgate_register_loaders() -> list[type[Loader]]:
    """Provide `loader = "onnx"`."""
    from qgate_onnx.loader import OnnxLoader

    return [OnnxLoader]
