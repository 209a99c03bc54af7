"""The exporter `torchscript`: a file that `torch::jit::load` runs, in C++ or Python, with torch alone."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from qgate.errors import ArtifactError
from qgate.quantization.backends import FbgemmBackend, OnednnBackend, X86Backend
from qgate.quantization.prepare import quiet_torch_ao

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["HEADER_FILE", "TorchScriptExporter"]

HEADER_FILE = "qgate.json"  # the entry beside the code that holds the artifact's header
_BACKENDS = {backend.name: backend for backend in (FbgemmBackend, OnednnBackend, X86Backend)}


class TorchScriptExporter:
    """Writes the frozen TorchScript of a backend whose every operator is torch's own."""

    name: ClassVar[str] = "torchscript"
    suffix: ClassVar[str] = ".pt"

    def is_available(self) -> str | None:
        """Say nothing: torch is always there."""
        return None

    def export(
        self, reference: torch.fx.GraphModule, example_inputs: tuple[torch.Tensor, ...], header: Mapping[str, Any]
    ) -> bytes:
        """Give the file's content. Raises `ArtifactError` where the backend's kernels are not torch's."""
        name = header["quantization"]["backend"]
        if name not in _BACKENDS:
            raise ArtifactError(
                f'the kernels of backend "{name}" are not torch\'s own; name one of {", ".join(_BACKENDS)} as the '
                "recipe's backend"
            )
        lowered = _BACKENDS[name]().lower(reference, example_inputs)
        if not isinstance(lowered, torch.jit.ScriptModule):
            raise ArtifactError("the model cannot be traced to TorchScript, or its trace gives something else")
        stream = io.BytesIO()
        with quiet_torch_ao():
            torch.jit.save(lowered, stream, _extra_files={HEADER_FILE: json.dumps(header)})
        return stream.getvalue()
