"""The int8 model as one file: what it holds, written whole, read without running anything that it says."""

from __future__ import annotations

import hashlib
import io
import json
import math
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from qgate.engine.digest import digest
from qgate.errors import ArtifactError, QGateError
from qgate.outputs import artifact_output
from qgate.quantization.codec import decode, encode
from qgate.results import Artifact

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from qgate.plugins import Registry

__all__ = [
    "Encoded",
    "artifact_bytes",
    "content_sha256",
    "edited_bytes",
    "encoded_bytes",
    "example_inputs",
    "float_bytes",
    "load_artifact",
    "load_reference",
    "read_header",
    "write_artifact",
]

FORMAT = "qgate-artifact-1"
Encoded = tuple[dict[str, Any], dict[str, torch.Tensor]]

_MAX_GRAPH_BYTES = 2**28
_SEAL = b"\nqgate-sha256:"
_SEAL_BYTES = len(_SEAL) + 64


@dataclass(frozen=True)
class Contents:
    """What an artifact holds: a JSON-able header, the graph as JSON-able data, and its tensors."""

    header: dict[str, Any]
    graph: dict[str, Any]
    tensors: dict[str, torch.Tensor]


def artifact_bytes(
    reference: torch.fx.GraphModule, example_inputs: tuple[torch.Tensor, ...], header: Mapping[str, Any]
) -> bytes:
    """Give the content of the file for a reference graph; `header` is JSON-able and travels with it."""
    return encoded_bytes(encode(reference, example_inputs), example_inputs, header)


def encoded_bytes(encoded: Encoded, example_inputs: tuple[torch.Tensor, ...], header: Mapping[str, Any]) -> bytes:
    """Give the same for a reference graph that is encoded already: a document and its tensors."""
    graph, tensors = encoded
    inputs = [
        {"shape": list(value.shape), "dtype": str(value.dtype).removeprefix("torch.")} for value in example_inputs
    ]
    return _pack(Contents({**header, "inputs": inputs}, graph, tensors))


def float_bytes(module: torch.nn.Module) -> int:
    """Count the bytes of the float32 weights of `module`, saved by the same writer."""
    tensors = {
        name: value.detach().to(torch.float32)
        for name, value in module.state_dict().items()
        if value.is_floating_point()
    }
    return len(_pack(Contents({}, {}, tensors)))


def write_artifact(path: Path, content: bytes) -> Artifact:
    """Write an artifact whole or not at all. Raises `ArtifactError` where the disk refuses."""
    artifact_output(path).write(content)
    return Artifact(path=str(path), bytes=len(content), sha256=hashlib.sha256(content).hexdigest())


def edited_bytes(path: Path, edit: Callable[[dict[str, torch.Tensor]], None]) -> bytes:
    """Give the content of an artifact whose tensors were changed in place: whole and sealed, but not what it was."""
    contents = _read(path)
    edit(contents.tensors)
    return _pack(contents)


def content_sha256(path: Path) -> str:
    """Hash what an artifact computes, whenever it was made: graph, tensors and backend. Raises `ArtifactError`."""
    contents = _read(path)
    run_by = [contents.header["quantization"]["backend"], contents.header.get("byte_scale")]
    return digest([contents.graph, contents.tensors, run_by])


def read_header(path: Path | str) -> dict[str, Any]:
    """Read what an artifact says of itself: recipe, input description, environment. Raises `ArtifactError`."""
    return _read(Path(path)).header


def load_reference(path: Path) -> torch.fx.GraphModule:
    """Read the reference graph of an artifact: explicit quantize and dequantize nodes. Raises `ArtifactError`."""
    return _reference(_read(path))


def _reference(contents: Contents) -> torch.fx.GraphModule:
    reference = decode(contents.graph, contents.tensors)
    reference.meta["byte_scale"] = contents.header.get("byte_scale")
    return reference


def load_artifact(path: Path | str, *, registry: Registry | None = None) -> torch.nn.Module:
    """Load an int8 model in the fastest form that its backend has on this machine.

    The module maps preprocessed inputs to raw outputs, as the float32 one did; `read_header` says how to make the
    inputs and what the outputs mean. The checkpoint that it came from is not needed, and nothing in the file is
    executed. Backends of third parties are looked up in `registry`, by default all installed ones.

    Raises `ArtifactError` where the file is missing, damaged, of another format, or made for kernels that this
    machine lacks or on which it would saturate.
    """
    path = Path(path)
    contents = _read(path)
    try:
        backend = _backend(contents.header, registry)
        reference = _reference(contents)
        lowered: torch.nn.Module = backend.lower(reference, example_inputs(contents.header))
    except ArtifactError as error:
        raise ArtifactError(error.message, path=path) from error
    except QGateError:
        raise
    except Exception as error:
        raise ArtifactError(
            f"cannot be rebuilt ({type(error).__name__}: {error}); export the model again", path=path
        ) from error
    return lowered


def example_inputs(header: Mapping[str, Any]) -> tuple[torch.Tensor, ...]:
    """Make inputs of the shapes that an artifact was made for."""
    generator = torch.Generator().manual_seed(0)
    values = []
    for described in header["inputs"]:
        dtype = getattr(torch, described["dtype"])
        if dtype.is_floating_point:
            values.append(torch.rand(described["shape"], generator=generator, dtype=dtype))
        else:
            values.append(torch.zeros(described["shape"], dtype=dtype))
    return tuple(values)


def _backend(header: dict[str, Any], registry: Registry | None) -> Any:
    if registry is None:
        from qgate.plugins import load_registry

        registry = load_registry()
    recipe = header["quantization"]
    if recipe["backend"] not in registry.backends:
        raise ArtifactError(f'needs backend "{recipe["backend"]}"; install the plugin that has it')
    backend = registry.backends.get(recipe["backend"])()
    reason = backend.is_available()
    if reason:
        raise ArtifactError(f'needs backend "{recipe["backend"]}", but {reason}')
    if backend.needs_reduced_range() and not recipe["reduce_range"]:
        raise ArtifactError(
            f'was made with the full int8 range on {header["environment"]["cpu"]}; the "{recipe["backend"]}" kernels '
            "saturate on this CPU, which has no VNNI; export it here, or with reduce_range = true"
        )
    return backend


def _pack(contents: Contents) -> bytes:
    """Give the archive that torch writes, and behind it the hash of its every byte: torch itself checks only some.

    It has an entry for each type of tensor, not for each tensor: hundreds of scales would double their size.
    """
    layout, pools = _pool(contents.tensors)
    document = {
        "format": FORMAT,
        "header": json.dumps(contents.header, sort_keys=True),
        "graph": _deflate({"graph": contents.graph, "layout": layout}),
        "tensors": pools,
    }
    stream = io.BytesIO()
    torch.save(document, stream)
    archive = stream.getvalue()
    return archive + _SEAL + hashlib.sha256(archive).hexdigest().encode()


def _read(path: Path) -> Contents:
    document = _unpickled(_unsealed(path), path)
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise ArtifactError(f"is no qgate artifact (expected format {FORMAT}); export the model again", path=path)
    try:
        described = _inflate(document["graph"])
        tensors = dict(_unpool(described["layout"], document["tensors"]))
        return Contents(json.loads(document["header"]), described["graph"], tensors)
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError, zlib.error) as error:
        raise ArtifactError("is damaged; export the model again", path=path) from error


Layout = list[tuple[str, str, list[int]]]


def _pool(tensors: Mapping[str, torch.Tensor]) -> tuple[Layout, dict[str, torch.Tensor]]:
    """Lay tensors of one type end to end; the layout has each one's name, type and shape, in order."""
    layout = [(name, str(value.dtype).removeprefix("torch."), list(value.shape)) for name, value in tensors.items()]
    parts: dict[str, list[torch.Tensor]] = {}
    for (_, dtype, _), value in zip(layout, tensors.values(), strict=True):
        parts.setdefault(dtype, []).append(value.detach().cpu().reshape(-1))
    return layout, {dtype: torch.cat(values) for dtype, values in parts.items()}


def _unpool(layout: Layout, pools: Mapping[str, torch.Tensor]) -> Iterator[tuple[str, torch.Tensor]]:
    begin = dict.fromkeys(pools, 0)
    for name, dtype, shape in layout:
        end = begin[dtype] + math.prod(shape)
        yield name, pools[dtype][begin[dtype] : end].reshape(shape).clone()
        begin[dtype] = end


def _deflate(document: dict[str, Any]) -> torch.Tensor:
    text = json.dumps(document, separators=(",", ":"))
    return torch.frombuffer(bytearray(zlib.compress(text.encode())), dtype=torch.uint8)


def _inflate(content: torch.Tensor) -> dict[str, Any]:
    """Undo `_deflate`; what a crafted file makes of itself is bounded."""
    inflater = zlib.decompressobj()
    text = inflater.decompress(content.numpy().tobytes(), _MAX_GRAPH_BYTES)
    if not inflater.eof:
        raise ValueError("more than a graph takes")
    document: dict[str, Any] = json.loads(text)
    return document


def _unsealed(path: Path) -> bytes:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise ArtifactError("no such file; run the gate or `qgate export` first", path=path) from None
    except OSError as error:
        raise ArtifactError(f"cannot be read: {error.strerror or error}", path=path) from error
    archive, seal = content[:-_SEAL_BYTES], content[-_SEAL_BYTES:]
    if not seal.startswith(_SEAL):
        raise ArtifactError("is truncated, damaged or no qgate artifact; export the model again", path=path)
    if seal[len(_SEAL) :] != hashlib.sha256(archive).hexdigest().encode():
        raise ArtifactError("its content does not match its checksum; export the model again", path=path)
    return archive


def _unpickled(archive: bytes, path: Path) -> Any:
    """Read data and tensors; `weights_only` refuses a pickle that names anything else."""
    try:
        return torch.load(io.BytesIO(archive), map_location="cpu", weights_only=True)
    except Exception as error:  # a crafted archive makes torch raise anything
        raise ArtifactError("is damaged or no qgate artifact; export the model again", path=path) from error
