"""The loader `onnx`: a float32 model given as an ONNX file."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from qgate.errors import ConfigError, ModelError
from qgate.protocols import LoadedModel

if TYPE_CHECKING:
    from pathlib import Path

    from onnx import ModelProto, TensorProto, ValueInfoProto

__all__ = ["OnnxLoader", "OnnxOptions"]


@dataclass(frozen=True)
class OnnxOptions:
    """What `[models.X]` takes with `loader = "onnx"`.

    `input_shapes` gives each input's shape, the batch of one included, where the file does not. `preprocess` and
    `postprocess` are the user's functions, `package.module:function`, as `qgate.LoadedModel` has them.
    """

    weights: Path
    input_shapes: tuple[tuple[int, ...], ...] = ()
    preprocess: str | None = None
    postprocess: str | None = None
    class_names: tuple[str, ...] = ()


class OnnxLoader:
    """Loads a float32 ONNX model as a module of torch.nn's layers; nothing of the file is executed."""

    name: ClassVar[str] = "onnx"
    Options: ClassVar[type] = OnnxOptions

    def load(self, options: OnnxOptions) -> LoadedModel:
        """Read the file. Raises `ModelError`, which names the operator that is not read."""
        if not find_spec("onnx"):
            raise ModelError("loader \"onnx\" needs the package onnx: pip install 'pytest-qgate[onnx]'")
        from qgate_onnx.importer import imported

        model, sha256 = _read(options.weights)
        shapes = _shapes(model, options)
        try:
            module = imported(model, shapes)
        except ModelError as error:
            raise ModelError(error.message, path=options.weights) from error
        given = {name: _function(path) for name in ("preprocess", "postprocess") if (path := getattr(options, name))}
        inputs = tuple(torch.zeros(shape) for shape in shapes.values())
        return LoadedModel(module, inputs, class_names=options.class_names, source_sha256=sha256, **given)


def _read(path: Path) -> tuple[ModelProto, str]:
    import onnx

    try:
        content = path.read_bytes()
    except OSError as error:
        raise ModelError(f"cannot be read: {error.strerror or error}", path=path) from error
    sha256 = hashlib.sha256(content)
    try:
        model = onnx.load_model_from_string(content)
        beside = [tensor for tensor in _constants(model) if onnx.external_data_helper.uses_external_data(tensor)]
        onnx.load_external_data_for_model(model, str(path.parent))
        onnx.checker.check_model(model)
    except Exception as error:
        said = str(error).strip().splitlines() or [type(error).__name__]
        raise ModelError(f"is no ONNX model: {said[0]}", path=path) from error
    for tensor in beside:
        sha256.update(tensor.raw_data)
    return model, sha256.hexdigest()


def _constants(model: ModelProto) -> list[TensorProto]:
    """List the tensors of a model, whose values may be in files beside it."""
    attributes = (attribute for node in model.graph.node for attribute in node.attribute)
    return [*model.graph.initializer, *(attribute.t for attribute in attributes if attribute.HasField("t"))]


def _shapes(model: ModelProto, options: OnnxOptions) -> dict[str, tuple[int, ...]]:
    """Give the inputs' shapes, a batch of one. Raises `ModelError` where neither file nor options say a length."""
    constants = {value.name for value in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in constants]
    for value in inputs:
        _check_float32(value, options.weights)
    if options.input_shapes and len(options.input_shapes) != len(inputs):
        raise ModelError(f"has {len(inputs)} inputs, input_shapes {len(options.input_shapes)}", path=options.weights)
    said = options.input_shapes or (None,) * len(inputs)
    return {value.name: shape or _own_shape(value, options.weights) for value, shape in zip(inputs, said, strict=True)}


def _check_float32(value: ValueInfoProto, path: Path) -> None:
    from onnx import TensorProto

    kind = value.type.tensor_type.elem_type
    if kind != TensorProto.FLOAT:
        found = TensorProto.DataType.Name(kind)
        raise ModelError(f'input "{value.name}" is of type {found}; expected FLOAT, give the float32 model', path=path)


def _own_shape(value: Any, path: Path) -> tuple[int, ...]:
    dimensions = value.type.tensor_type.shape.dim
    lengths = [dimension.dim_value for dimension in dimensions]
    lengths[:1] = [lengths[0] or 1] if lengths else []
    if not all(lengths):
        described = [dimension.dim_param or dimension.dim_value or "?" for dimension in dimensions]
        raise ModelError(
            f'input "{value.name}" is of shape {described}; say input_shapes = [[1, ...]] in [models.X]', path=path
        )
    return tuple(lengths)


def _function(path: str) -> Any:
    module, _, name = path.partition(":")
    try:
        return getattr(import_module(module), name)
    except (AttributeError, ImportError, ValueError) as error:
        raise ConfigError(f'"{path}" is no function ({error}); expected "package.module:function"') from error
