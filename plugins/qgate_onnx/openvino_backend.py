"""The backend `openvino`."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch

from qgate.quantization.fused.config import backend_config
from qgate_onnx.refine import leave_out_repeated
from qgate_onnx.runtimes import Runner, RuntimeBackend, structure_of

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["OpenVinoBackend"]


class OpenVinoBackend(RuntimeBackend):
    """OpenVINO's kernels on the CPU: like the fused ones, a layer, its activation and its quantization are one call."""

    name: ClassVar[str] = "openvino"
    extra: ClassVar[str] = "openvino"
    float_outputs: ClassVar[bool] = True

    def backend_config(self) -> Any:
        """Give the fused kernels' configuration: one quantization behind a layer and its activation."""
        return backend_config()

    def refine(self, reference: torch.fx.GraphModule) -> torch.fx.GraphModule:
        """Leave out what quantizes a value as it is already: OpenVINO would run it, before each concatenation."""
        return leave_out_repeated(reference)

    def read(self, content: bytes) -> Runner:
        """Make a model of an exported file's content."""
        return _Model(content)


class _Model(Runner):
    """A model on as many threads as torch has when it is made, compiled for each shape of its inputs that it meets."""

    def __init__(self, content: bytes) -> None:
        import openvino

        super().__init__(structure_of(content))
        self.core = openvino.Core()
        self.model = self.core.read_model(content, b"")
        self.settings = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "NUM_STREAMS": 1,
            "INFERENCE_PRECISION_HINT": "f32",  # of what is not int8; bf16 would be another model
        }
        self.compiled: dict[tuple[torch.Size, ...], Any] = {}
        self.lock, self.own = threading.Lock(), threading.local()

    def run(self, inputs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Give the outputs in memory of their own."""
        import openvino

        request = self._request(tuple(value.shape for value in inputs))
        outputs = [
            torch.from_numpy(np.empty(port.shape, port.element_type.to_dtype())) for port in request.model_outputs
        ]
        for place, value in enumerate(outputs):
            request.set_output_tensor(place, openvino.Tensor(value.numpy(), shared_memory=True))
        request.infer([value.numpy() for value in inputs], share_inputs=True, share_outputs=True)
        return outputs

    def _request(self, shapes: tuple[torch.Size, ...]) -> Any:
        """Give the calling thread's request for inputs of these shapes."""
        requests: dict[tuple[torch.Size, ...], Any] = self.own.__dict__.setdefault("requests", {})
        if shapes not in requests:
            with self.lock:
                if shapes not in self.compiled:
                    self.compiled[shapes] = self._compile(shapes)
            requests[shapes] = self.compiled[shapes].create_infer_request()
        return requests[shapes]

    def _compile(self, shapes: tuple[torch.Size, ...]) -> Any:
        model = self.model.clone()
        model.reshape({place: list(shape) for place, shape in enumerate(shapes)})
        return self.core.compile_model(model, "CPU", self.settings)
