"""What the backends `onnxruntime` and `openvino` share: they run the file that the exporter `onnx` writes."""

from __future__ import annotations

import json
from abc import abstractmethod
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from qgate.errors import ArtifactError
from qgate.quantization.backends import loses_products
from qgate_onnx.exporter import STRUCTURE, OnnxExporter

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

__all__ = ["Runner", "RuntimeBackend"]


class Runner(torch.nn.Module):
    """A model in a runtime, called as the torch module that it was: same inputs, same structure of outputs.

    What it gives is its own; it may be called from several threads.
    """

    def __init__(self, structure: Any) -> None:
        super().__init__()
        self.structure = structure

    def forward(self, *inputs: torch.Tensor) -> Any:
        """Run one batch."""
        outputs = self.run([value.contiguous() for value in inputs])
        return _put_together(self.structure, outputs)

    @abstractmethod
    def run(self, inputs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Give the outputs in their order."""


def _put_together(structure: Any, outputs: list[torch.Tensor]) -> Any:
    if isinstance(structure, list):
        return tuple(_put_together(part, outputs) for part in structure)
    if isinstance(structure, dict):
        return {key: _put_together(part, outputs) for key, part in structure.items()}
    return outputs[structure]


class RuntimeBackend:
    """A runtime that reads ONNX; the gate judges the file that ships, as the runtime reads it from disk."""

    name: ClassVar[str]
    exporter: ClassVar[str] = "onnx"
    extra: ClassVar[str]

    def is_available(self) -> str | None:
        """Give the reason why the runtime cannot be used; None where it can."""
        missing = [package for package in ("onnx", self.name) if not find_spec(package)]
        if not missing:
            return None
        return f"needs the package {' and '.join(missing)}: pip install 'pytest-qgate[{self.extra}]'"

    def needs_reduced_range(self) -> bool:
        """Measure whether the runtime's kernels saturate on this CPU."""
        return _saturates(self.name, self.read)

    def lower(self, reference: torch.fx.GraphModule, example_inputs: tuple[torch.Tensor, ...]) -> torch.nn.Module:
        """Run the graph in the runtime, without a file."""
        return self.read(OnnxExporter().export(reference, example_inputs, {}))

    def load(self, path: Path) -> torch.nn.Module:
        """Run an exported file in the runtime, on as many threads as torch has now. Raises `ArtifactError`."""
        try:
            return self.read(path.read_bytes())
        except OSError as error:
            raise ArtifactError(f"cannot be read: {error.strerror or error}", path=path) from error
        except Exception as error:  # a runtime raises anything
            raise ArtifactError(f"cannot be run by {self.name}: {error}", path=path) from error

    @abstractmethod
    def read(self, content: bytes) -> Runner:
        """Give the runner of an exported file's content."""


def structure_of(content: bytes) -> Any:
    """Give how an exported file's outputs are put together; in a file of somebody else, they are as they come."""
    import onnx

    model = onnx.load_model_from_string(content)
    properties = {entry.key: entry.value for entry in model.metadata_props}
    outputs = len(model.graph.output)
    return json.loads(properties.get(STRUCTURE, json.dumps(list(range(outputs)) if outputs > 1 else 0)))


_KNOWN: dict[str, bool] = {}  # by runtime: the CPU stays what it is


def _saturates(name: str, read: Callable[[bytes], Runner]) -> bool:
    """Multiply in a runtime, by models of one layer between a dequantization and a quantization."""
    if name not in _KNOWN:
        _KNOWN[name] = loses_products(lambda x, *layer: read(_one_layer(x, *layer))(x))
    return _KNOWN[name]


def _one_layer(x: torch.Tensor, weight: torch.Tensor, groups: int, scale: float) -> bytes:
    import onnx

    from qgate_onnx.exporter import opened
    from qgate_onnx.writer import Writer

    writer = Writer()
    one = writer.grid(1.0, 0, torch.uint8, None, "one")
    own = writer.grid(torch.ones(len(weight)), torch.zeros(len(weight)), torch.int8, 0, "own")
    result = writer.grid(scale, 0, torch.uint8, None, "result")
    inputs = (writer.dequantize("x", one, "a"), writer.dequantize(writer.constant(weight), own, "b"))
    op, how = ("Gemm", {"transB": 1}) if weight.ndim == 2 else ("Conv", {"group": groups})  # noqa: PLR2004  # a matrix
    writer.quantize(writer.call(op, *inputs, name="c", **how), result, "y")
    kind = onnx.TensorProto.UINT8
    starts = [onnx.helper.make_tensor_value_info("x", kind, list(x.shape))]
    ends = [onnx.helper.make_tensor_value_info("y", kind, [x.shape[0], len(weight), *x.shape[2:]])]
    graph = onnx.helper.make_graph(writer.nodes, "probe", starts, ends, writer.constants)
    content: bytes = opened(graph).SerializeToString()
    return content
