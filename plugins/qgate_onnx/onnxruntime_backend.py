"""The backend `onnxruntime`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import torch

from qgate.quantization.backends import onednn_config
from qgate_onnx.refine import quantize_sigmoids
from qgate_onnx.runtimes import Runner, RuntimeBackend, structure_of

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["OnnxRuntimeBackend"]


class OnnxRuntimeBackend(RuntimeBackend):
    """ONNX Runtime's kernels on the CPU. They want a quantization on either side of each operator."""

    name: ClassVar[str] = "onnxruntime"
    extra: ClassVar[str] = "onnx"

    def backend_config(self) -> Any:
        """Give oneDNN's configuration: a layer's result is quantized, then its activation's."""
        return onednn_config()

    def refine(self, reference: torch.fx.GraphModule) -> torch.fx.GraphModule:
        """Quantize the sigmoid in each SiLU: its kernel is a byte table, and so the product has one as well."""
        return quantize_sigmoids(reference)

    def read(self, content: bytes) -> Runner:
        """Make a session of an exported file's content."""
        return _Session(content)


class _Session(Runner):
    """A session on as many threads as torch has when it is made; it reads and writes torch's memory."""

    def __init__(self, content: bytes) -> None:
        import onnxruntime

        super().__init__(structure_of(content))
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = torch.get_num_threads(), 1
        options.log_severity_level = 3  # errors
        self.session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        self.inputs = [value.name for value in self.session.get_inputs()]
        self.outputs = [value.name for value in self.session.get_outputs()]
        self.shapes: dict[tuple[torch.Size, ...], list[tuple[torch.dtype, torch.Size]]] = {}

    def run(self, inputs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Give the outputs in memory of their own; a shape's first run tells how much that is."""
        shapes = tuple(value.shape for value in inputs)
        if shapes not in self.shapes:
            return self._learn(inputs, shapes)
        binding = self.session.io_binding()
        outputs = [torch.empty(shape, dtype=dtype) for dtype, shape in self.shapes[shapes]]
        for name, value in zip(self.inputs, inputs, strict=True):
            binding.bind_input(name, "cpu", 0, _numpy(value.dtype), list(value.shape), value.data_ptr())
        for name, value in zip(self.outputs, outputs, strict=True):
            binding.bind_output(name, "cpu", 0, _numpy(value.dtype), list(value.shape), value.data_ptr())
        self.session.run_with_iobinding(binding)
        return outputs

    def _learn(self, inputs: Sequence[torch.Tensor], shapes: tuple[torch.Size, ...]) -> list[torch.Tensor]:
        given = {name: value.numpy() for name, value in zip(self.inputs, inputs, strict=True)}
        outputs = [torch.from_numpy(value) for value in self.session.run(self.outputs, given)]
        self.shapes[shapes] = [(value.dtype, value.shape) for value in outputs]
        return outputs


def _numpy(dtype: torch.dtype) -> Any:
    return torch.empty(0, dtype=dtype).numpy().dtype
