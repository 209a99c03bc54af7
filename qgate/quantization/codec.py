"""A traced graph as data: JSON and plain tensors, both ways, with nothing pickled and nothing named but torch.

A decoded graph can call only what `allowed` admits: torch's tensor functions, methods of tensors, and modules of
torch.nn. Int8 weights are stored as int8; the reference modules that hold them keep float weights in memory.
A module that FX kept whole and that is no data (a user's own, or torch's GRU) travels as a TorchScript archive.
"""

from __future__ import annotations

import io
import math
import operator
from importlib import import_module
from typing import TYPE_CHECKING, Any

import torch
from torch.ao.nn.quantized.reference.modules.utils import ReferenceQuantizedModule

from qgate.errors import ArtifactError
from qgate.quantization.allowed import check_node, checked_script, function, function_path, is_identifier, is_name
from qgate.quantization.prepare import quiet_torch_ao

__all__ = ["decode", "encode"]

if TYPE_CHECKING:
    from collections.abc import Callable

Document = dict[str, Any]
Tensors = dict[str, torch.Tensor]

_MODULE_PACKAGES = ("torch.nn.modules.", "torch.ao.nn.quantized.reference.modules.", "torch.ao.nn.intrinsic.modules.")
_TORCH_VALUES = (torch.dtype, torch.layout, torch.memory_format, torch.qscheme)


@quiet_torch_ao()
def encode(graph_module: torch.fx.GraphModule, example_inputs: tuple[torch.Tensor, ...]) -> tuple[Document, Tensors]:
    """Give a graph as a JSON-able document and the tensors that it names.

    Raises `ArtifactError` where a node calls something that no decoder may call.
    """
    tensors: Tensors = {}
    encoder = _ModuleEncoder(tensors, _record_inputs(graph_module, example_inputs))
    nodes, modules, attributes = [], {}, []
    for node in graph_module.graph.nodes:
        nodes.append(_encode_node(node))
        target = str(node.target)
        if node.op == "call_module" and target not in modules:
            modules[target] = encoder.encode(target, graph_module.get_submodule(target))
        elif node.op == "get_attr" and target not in attributes:
            attributes.append(target)
            tensors[target] = _plain(target, operator.attrgetter(target)(graph_module))
    return {"nodes": nodes, "modules": modules, "attributes": attributes}, tensors


def decode(document: Document, tensors: Tensors) -> torch.fx.GraphModule:
    """Rebuild a graph from what `encode` gave. Raises `ArtifactError` where it holds what is not allowed."""
    try:
        root = torch.nn.Module()
        for target, module in document["modules"].items():
            _attach(root, target, _decode_module(module, target, tensors))
        for target in document["attributes"]:
            _attach(root, target, tensors[target])
        return torch.fx.GraphModule(root, _decode_graph(document["nodes"], root)).eval()
    except ArtifactError:
        raise
    except Exception as error:  # what a hand-made document makes torch raise is without end
        raise ArtifactError(
            f"the graph is damaged ({type(error).__name__}: {error}); export the model again"
        ) from error


def _encode_node(node: torch.fx.Node) -> Document:
    called = node.op == "call_function"
    target, args = function_path(node.target, node.name) if called else str(node.target), _to_json(node.args)
    if node.op != "output":
        check_node(node.op, target, node.args)
    kwargs = {key: _to_json(value) for key, value in node.kwargs.items()}
    return {"op": node.op, "name": node.name, "target": target, "args": args, "kwargs": kwargs}


def _decode_graph(documents: list[Document], root: torch.nn.Module) -> torch.fx.Graph:
    graph = torch.fx.Graph()
    nodes: dict[str, torch.fx.Node] = {}
    for document in documents:
        op, target = document["op"], document["target"]
        args, kwargs = _from_json(document["args"], nodes), _kwargs(document["kwargs"], nodes)
        if op == "output":
            graph.output(args[0])
            continue
        check_node(op, target, args)
        _check_held(op, target, root)
        called = function(target) if op == "call_function" else target
        nodes[document["name"]] = graph.create_node(op, called, args, kwargs, name=document["name"])
    graph.lint()
    return graph


def _check_held(op: str, target: str, root: torch.nn.Module) -> None:
    """Raise where a module or tensor is none: methods have such names too, and a TorchScript module has `save`."""
    if op == "call_module":
        root.get_submodule(target)
    elif op == "get_attr":
        root.get_buffer(target)


def _kwargs(document: Document, nodes: dict[str, torch.fx.Node]) -> dict[str, Any]:
    if not all(map(is_identifier, document)):
        raise ArtifactError(f"the graph holds keyword arguments that are not allowed: {sorted(document)}")
    return {key: _from_json(value, nodes) for key, value in document.items()}


def _to_json(value: Any) -> Any:
    """Encode a value; everything but JSON's own scalars and lists is an object with one key, its kind."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else {"float": str(value)}
    if isinstance(value, list):
        return [_to_json(item) for item in value]
    for types, encode_as in _KINDS.items():
        if isinstance(value, types):
            return encode_as(value)
    raise ArtifactError(f"an artifact cannot hold a value of type {type(value).__name__}: {value!r}")


_KINDS: dict[Any, Callable[[Any], Document]] = {
    torch.fx.Node: lambda value: {"node": value.name},
    slice: lambda value: {"slice": [_to_json(part) for part in (value.start, value.stop, value.step)]},
    type(Ellipsis): lambda _: {"ellipsis": True},
    _TORCH_VALUES: lambda value: {"torch": str(value).removeprefix("torch.")},
    torch.device: lambda value: {"device": str(value)},
    tuple: lambda value: {"tuple": [_to_json(item) for item in value]},
    dict: lambda value: {"dict": [[_to_json(key), _to_json(item)] for key, item in value.items()]},
}


def _from_json(value: Any, nodes: dict[str, torch.fx.Node]) -> Any:
    if isinstance(value, list):
        return [_from_json(item, nodes) for item in value]
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "node":
        return nodes[content]
    if kind == "dict":
        return {_from_json(key, nodes): _from_json(item, nodes) for key, item in content}
    if kind in {"tuple", "slice"}:
        items = [_from_json(item, nodes) for item in content]
        return tuple(items) if kind == "tuple" else slice(*items)
    return _scalar(kind, content)


def _scalar(kind: str, content: Any) -> Any:
    if kind == "torch" and isinstance(getattr(torch, content, None), _TORCH_VALUES):
        return getattr(torch, content)
    if kind == "float":
        return float(content)
    if kind == "device":
        return torch.device(content)
    if kind == "ellipsis":
        return Ellipsis
    raise ArtifactError(f"the graph holds a value that is not allowed: {kind} {content!r}")


class _ModuleEncoder:
    """Encodes modules, their tensors put into one dictionary under the module's name."""

    def __init__(self, tensors: Tensors, recorded: dict[str, tuple[Any, ...]]) -> None:
        self.tensors = tensors
        self.recorded = recorded

    def encode(self, name: str, module: torch.nn.Module) -> Document:
        if name in self.recorded:
            return self._encode_script(name, module)
        document: Document = {"class": _class_path(module), "attributes": _attributes(module), "tensors": []}
        for key, value in [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]:
            document["tensors"].append(key)
            self.tensors[f"{name}.{key}"] = _stored(module, key, value)
        document["absent"] = [key for key, value in {**module._parameters, **module._buffers}.items() if value is None]
        document["children"] = {key: self.encode(f"{name}.{key}", child) for key, child in module.named_children()}
        return document

    def _encode_script(self, name: str, module: torch.nn.Module) -> Document:
        try:
            stream = io.BytesIO()
            with torch.no_grad(), quiet_torch_ao():
                torch.jit.save(_torchscript(module.eval(), self.recorded[name]), stream)
            checked_script(stream.getvalue())
        except Exception as error:
            raise ArtifactError(
                f'module "{name}" ({type(module).__name__}) is kept whole, and TorchScript cannot hold it: {error}'
            ) from error
        self.tensors[f"{name}.script"] = torch.frombuffer(bytearray(stream.getvalue()), dtype=torch.uint8)
        return {"script": f"{name}.script"}


def _torchscript(module: torch.nn.Module, inputs: tuple[Any, ...]) -> Any:
    """Compile a module, which keeps its branches, or else trace it, which keeps the way that `inputs` take."""
    try:
        script = torch.jit.script(module)
        script(*inputs)
    except Exception:  # noqa: BLE001  # TorchScript reads only a part of Python, and raises anything
        return torch.jit.trace(module, inputs, strict=False, check_trace=False)
    return script


def _record_inputs(
    graph_module: torch.fx.GraphModule, example_inputs: tuple[torch.Tensor, ...]
) -> dict[str, tuple[Any, ...]]:
    """Run the graph once and keep what each module that is not data is called with."""
    recorded: dict[str, tuple[Any, ...]] = {}
    hooks = []
    for node in graph_module.graph.nodes:
        if node.op == "call_module":
            name, module = str(node.target), graph_module.get_submodule(str(node.target))
            if not _is_data(module):
                hooks.append(module.register_forward_pre_hook(lambda _, args, name=name: recorded.update({name: args})))
    if hooks:
        with torch.no_grad():
            graph_module(*example_inputs)
    for hook in hooks:
        hook.remove()
    return recorded


def _class_path(module: torch.nn.Module) -> str:
    return f"{type(module).__module__}.{type(module).__qualname__}"


def _is_data(module: torch.nn.Module) -> bool:
    """Say whether a module, with all that is in it, is torch's own and described by JSON and tensors."""
    if not _class_path(module).startswith(_MODULE_PACKAGES):
        return False
    try:
        _attributes(module)
    except ArtifactError:
        return False
    return all(map(_is_data, module.children()))


def _attributes(module: torch.nn.Module) -> Document:
    private = torch.nn.Module().__dict__.keys()
    attributes = {key: value for key, value in vars(module).items() if key not in private and key != "qconfig"}
    return {key: _to_json(value) for key, value in attributes.items()}


def _stored(module: torch.nn.Module, key: str, value: torch.Tensor) -> torch.Tensor:
    if key == "weight" and isinstance(module, ReferenceQuantizedModule):
        weight: torch.Tensor = module.get_quantized_weight()
        return weight.int_repr()
    return _plain(key, value)


def _plain(name: str, value: Any) -> torch.Tensor:
    if not isinstance(value, torch.Tensor) or value.is_quantized:
        raise ArtifactError(f'an artifact cannot hold attribute "{name}" of type {type(value).__name__}')
    return value.detach().contiguous()


def _decode_module(document: Document, name: str, tensors: Tensors) -> torch.nn.Module:
    if "script" in document:
        archive = checked_script(tensors[document["script"]].numpy().tobytes())
        with quiet_torch_ao():
            script: torch.nn.Module = torch.jit.load(io.BytesIO(archive))
        return script
    module: torch.nn.Module = _module_class(document["class"])
    torch.nn.Module.__init__(module)
    for key, value in document["attributes"].items():
        setattr(module, key, _from_json(value, {}))
    for key in document["tensors"]:
        module.register_buffer(key, tensors[f"{name}.{key}"])
    for key in document["absent"]:
        module.register_parameter(key, None)
    for key, child in document["children"].items():
        module.add_module(key, _decode_module(child, f"{name}.{key}", tensors))
    if isinstance(module, ReferenceQuantizedModule):
        _dequantize_weight(module)
    return module.eval()


def _module_class(path: str) -> Any:
    package, _, name = path.rpartition(".")
    if not path.startswith(_MODULE_PACKAGES) or not is_name(name):
        raise ArtifactError(f"the graph holds a module that is not allowed: {path!r}")
    cls = getattr(import_module(package), name, None)
    if not (isinstance(cls, type) and issubclass(cls, torch.nn.Module) and cls.__module__ == package):
        raise ArtifactError(f"this version of torch has no module {path!r}")
    return cls.__new__(cls)


def _dequantize_weight(module: Any) -> None:
    """Give a reference module the float weight whose quantized values are the stored ones."""
    steps = module.weight.to(torch.float32)
    shape = [1] * steps.ndim
    if module.weight_scale.ndim:
        shape[module.weight_axis_int] = -1
    scale, zero_point = module.weight_scale.reshape(shape), module.weight_zero_point.reshape(shape)
    module.weight = (steps - zero_point) * scale


def _attach(root: torch.nn.Module, target: str, value: Any) -> None:
    *parents, name = target.split(".")
    for parent in parents:
        if parent not in root._modules:
            root.add_module(parent, torch.nn.Module())
        root = root.get_submodule(parent)
    if isinstance(value, torch.nn.Module):
        root.add_module(name, value)
    else:
        root.register_buffer(name, value)
