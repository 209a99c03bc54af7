"""The exporter `onnx`: a reference graph as a model of quantize and dequantize nodes (QDQ)."""

from __future__ import annotations

import json
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch
    from onnx import GraphProto, ModelProto

    from qgate_onnx.walk import Walked

__all__ = ["BATCH", "STRUCTURE", "OnnxExporter", "opened"]

# The first that has layer norms; TensorRT 8.6, OpenVINO 2023 and ONNX Runtime 1.12 know it.
_OPSET, _IR_VERSION = 17, 8
BATCH = "batch"  # the name of the axis that may have any length
STRUCTURE = "qgate_output"  # the entry of the metadata that says how a torch module gives the outputs

_KEPT = ("model", "qgate_version", "created", "source_sha256")
_AS_JSON = ("quantization", "class_names", "input_description", "environment")


class OnnxExporter:
    """Writes a model that ONNX Runtime, OpenVINO and other runtimes read, with the recipe's own scales."""

    name: ClassVar[str] = "onnx"
    suffix: ClassVar[str] = ".onnx"

    def is_available(self) -> str | None:
        """Give the reason why nothing can be written; None where it can."""
        return None if find_spec("onnx") else "needs the package onnx: pip install 'pytest-qgate[onnx]'"

    def export(
        self,
        reference: torch.fx.GraphModule,
        example_inputs: tuple[torch.Tensor, ...],
        header: Mapping[str, Any],
    ) -> bytes:
        """Give the file's content. Raises `ArtifactError`, which names the operator that has no form in ONNX."""
        from qgate_onnx.walk import walk

        model = _model(walk(reference, example_inputs), example_inputs, header)
        content: bytes = model.SerializeToString(deterministic=True)
        return content


def _model(walked: Walked, example_inputs: tuple[torch.Tensor, ...], header: Mapping[str, Any]) -> ModelProto:
    import onnx

    outputs, structure = _outputs(walked)
    graph = onnx.helper.make_graph(
        walked.writer.nodes,
        str(header.get("model", "model")),
        [_described(value, example.dtype) for value, example in zip(walked.inputs, example_inputs, strict=True)],
        [_described(value) for value in outputs],
        walked.writer.constants,
    )
    model = opened(graph)
    onnx.helper.set_model_props(model, {**_metadata(header), STRUCTURE: json.dumps(structure)})
    onnx.checker.check_model(model)
    return model


def opened(graph: GraphProto) -> ModelProto:
    """Give the model of a graph."""
    import onnx

    opset = onnx.helper.make_opsetid("", _OPSET)
    return onnx.helper.make_model(graph, opset_imports=[opset], ir_version=_IR_VERSION, producer_name="qgate")


def _metadata(header: Mapping[str, Any]) -> dict[str, str]:
    """Give what travels with the model: plain text, or JSON where it is a structure."""
    plain = {name: str(header[name]) for name in _KEPT if header.get(name) is not None}
    return {**plain, **{name: json.dumps(header[name]) for name in _AS_JSON if name in header}}


def _outputs(walked: Walked) -> tuple[list[Any], Any]:
    """Give every output a name of its own, and say how they are put together: by their places, in lists and objects."""
    from qgate.errors import ArtifactError
    from qgate_onnx.writer import Tensor

    outputs: list[Tensor] = []

    def placed(value: Any, name: str) -> Any:
        if isinstance(value, tuple | list):
            return [placed(part, f"{name}_{index}") for index, part in enumerate(value)]
        if isinstance(value, dict):
            return {key: placed(part, str(key)) for key, part in value.items()}
        if not isinstance(value, Tensor):
            raise ArtifactError(f"ONNX cannot hold an output of type {type(value).__name__}; give tensors")
        made = walked.writer.call("Identity", value.name, name=name)
        outputs.append(Tensor(made, value.shape))
        return len(outputs) - 1

    return outputs, placed(walked.output, "output")


def _described(value: Any, dtype: Any = None) -> Any:
    import onnx

    kind = onnx.TensorProto.FLOAT if dtype is None else onnx.helper.np_dtype_to_tensor_dtype(_numpy(dtype))
    shape = [BATCH if length is None else length for length in value.shape]
    return onnx.helper.make_tensor_value_info(value.name, kind, shape)


def _numpy(dtype: torch.dtype) -> Any:
    import torch

    return torch.empty(0, dtype=dtype).numpy().dtype
