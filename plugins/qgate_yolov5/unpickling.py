"""Reads the pickle of a torch checkpoint as data: an allow-list, and inert stand-ins for everything else.

Nothing that a file names is imported or called. What an allowed name gives is either a plain container, a
tensor reader of this module, or a class of `Stored` made for this one file: a pickle may call it and give its
objects a state, and reaches nothing by that.
"""

from __future__ import annotations

import io
import math
import pickle
import zipfile
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import nn

from qgate.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Iterator

_DTYPES = {
    "BFloat16Storage": torch.bfloat16,
    "BoolStorage": torch.bool,
    "ByteStorage": torch.uint8,
    "CharStorage": torch.int8,
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "IntStorage": torch.int32,
    "LongStorage": torch.int64,
    "ShortStorage": torch.int16,
}

# Values beside the network: training options, the best fitness, a device. None of them is needed, all are inert.
_INERT = {
    "_codecs": {"encode"},
    "argparse": {"Namespace"},
    "numpy": {"dtype", "ndarray"},
    "numpy.core.multiarray": {"_reconstruct", "scalar"},
    "numpy._core.multiarray": {"_reconstruct", "scalar"},
    "pathlib": {"Path", "PosixPath", "WindowsPath"},
    "pathlib._local": {"Path", "PosixPath", "WindowsPath"},
    "torch": {"Size", "device"},
}

_YOLO_MODULES = {"models.common", "models.experimental", "models.yolo"}

# Parts of `nn.MultiheadAttention`, which `torch.nn` does not export; the first is from before torch 1.9.
_ATTENTION_PARTS = {"_LinearWithBias", "NonDynamicallyQuantizableLinear"}

# One takes as much memory as the file says, whatever follows; the others reach objects by the number that any library
# in the process registered for them, past `find_class`.
_REFUSED_OPCODES = {pickle.BYTEARRAY8[0], pickle.EXT1[0], pickle.EXT2[0], pickle.EXT4[0]}

_MAX_DEPTH = 16


class Stored:
    """What a pickle says about an object: its class by name, and its state. It does nothing."""

    __slots__ = ("state",)
    kind: ClassVar[str] = ""
    state: Any

    def __new__(cls, *_arguments: Any, **_keywords: Any) -> Stored:
        """Make a stand-in, whatever the original took."""
        stored = object.__new__(cls)
        stored.state = None
        return stored

    def __init__(self, *_arguments: Any, **_keywords: Any) -> None: ...

    @property
    def class_name(self) -> str:
        """The name of the class without its module."""
        return self.kind.rpartition(".")[2]

    def get(self, name: str, default: Any = None) -> Any:
        """Give an attribute of the original object."""
        return self.state.get(name, default) if isinstance(self.state, dict) else default

    def children(self) -> dict[str, Stored]:
        """Give the sub-modules by name, where the original was an `nn.Module`."""
        return {name: child for name, child in self._items("_modules") if isinstance(child, Stored)}

    def tensors(self, prefix: str = "", depth: int = 0) -> Iterator[tuple[str, torch.Tensor]]:
        """Give parameters and buffers by their name in a `state_dict`. Raises `ModelError` on a tree without end."""
        if depth > _MAX_DEPTH:
            raise ModelError(f"damaged: modules are nested more than {_MAX_DEPTH} deep at {prefix[:60]}")
        for name, tensor in (*self._items("_parameters"), *self._items("_buffers")):
            if isinstance(tensor, torch.Tensor):
                yield f"{prefix}{name}", tensor
        for name, child in self.children().items():
            yield from child.tensors(f"{prefix}{name}.", depth + 1)

    def _items(self, table: str) -> list[tuple[str, Any]]:
        entries = self.get(table)
        return [(str(name), entry) for name, entry in entries.items()] if isinstance(entries, dict) else []


class _RebuildTensor:
    """Stands in for `torch._utils._rebuild_tensor_v2`: a view of a storage, within its bounds.

    None for a tensor that repeats its storage: that is no weight, but a grid that YOLOv5 keeps from the last image,
    and may be larger than memory.
    """

    __slots__ = ()

    def __call__(self, storage: Any, offset: Any, size: Any, stride: Any, *_rest: Any) -> torch.Tensor | None:
        if not isinstance(storage, torch.Tensor) or len(size) != len(stride):
            raise TypeError("a tensor without a storage")
        if offset < 0 or any(number < 0 for number in (*size, *stride)):
            raise ValueError("a tensor with a negative size or stride")
        last = offset + sum((length - 1) * step for length, step in zip(size, stride, strict=True))
        if 0 not in size and last >= storage.numel():
            raise ValueError("a tensor beyond the end of its storage")
        if math.prod(size) > storage.numel():
            return None
        return storage.as_strided(tuple(size), tuple(stride), offset)


class _RebuildParameter:
    """Stands in for `torch._utils._rebuild_parameter`: the tensor itself."""

    __slots__ = ()

    def __call__(self, data: Any, *_rest: Any) -> Any:
        return data


class _GetAttribute:
    """Stands in for `getattr`, by which the head of a segmentation model names one function, which is not needed."""

    __slots__ = ()

    def __call__(self, owner: Any, name: Any) -> None:
        kind = owner.kind if isinstance(owner, type) and issubclass(owner, Stored) else ""
        if (kind, name) != ("models.yolo.Detect", "forward"):
            raise _refusal("builtins", "getattr")


# Pickles of protocol 2, which torch writes, say `__builtin__`.
_KNOWN: dict[tuple[str, str], Any] = {
    ("__builtin__", "getattr"): _GetAttribute(),
    ("__builtin__", "set"): set,
    ("builtins", "set"): set,
    ("collections", "OrderedDict"): OrderedDict,
    ("torch._utils", "_rebuild_parameter"): _RebuildParameter(),
    ("torch._utils", "_rebuild_tensor_v2"): _RebuildTensor(),
}


def _is_module_class(module: str, name: str) -> bool:
    """Say whether `module.name` is an `nn.Module` class of torch, without resolving what the file names."""
    if module == "torch.nn.modules.linear" and name in _ATTENTION_PARTS:
        return True
    known = vars(nn).get(name)
    return isinstance(known, type) and issubclass(known, nn.Module) and known.__module__ == module


class _Unpickler(pickle._Unpickler):
    """Unpickles what a YOLOv5 checkpoint needs, and refuses a pickle that names anything else.

    It is Python's unpickler in Python. That in C takes memory by the largest index into its memo that the file names,
    up to 64 GB for a pickle of ten bytes, and cannot leave opcodes out. The price is 50 ms for YOLOv5n.
    """

    stack: list[Any]
    dispatch: ClassVar[dict[int, Any]] = {
        code: load for code, load in pickle._Unpickler.dispatch.items() if code not in _REFUSED_OPCODES
    }

    def __init__(self, archive: zipfile.ZipFile, root: str) -> None:
        super().__init__(io.BytesIO(_read(archive, f"{root}data.pkl")), encoding="utf-8")
        self._archive = archive
        self._root = root
        self._storages: dict[str, torch.Tensor] = {}
        self._classes: dict[str, type[Stored]] = {}

    def find_class(self, module: str, name: str) -> Any:
        """Give what stands for a name. Raises `ModelError` on a name that is not allowed."""
        if module == "torch" and name in _DTYPES:
            return _DTYPES[name]
        known = _KNOWN.get((module, name))
        return self._stand_in(module, name) if known is None else known

    def _stand_in(self, module: str, name: str) -> type[Stored]:
        is_yolo = module in _YOLO_MODULES and name.isidentifier()
        if not (is_yolo or name in _INERT.get(module, ()) or _is_module_class(module, name)):
            raise _refusal(module, name)
        kind = f"{module}.{name}"
        if kind not in self._classes:
            self._classes[kind] = type(name, (Stored,), {"__slots__": (), "kind": kind})
        return self._classes[kind]

    def load_build(self) -> None:
        """Give a stand-in its state. Other objects need none, and must not let a file set their attributes."""
        state = self.stack.pop()
        if isinstance(self.stack[-1], Stored):
            self.stack[-1].state = state

    dispatch[pickle.BUILD[0]] = load_build

    def persistent_load(self, reference: Any) -> torch.Tensor:
        """Read the storage that a tensor refers to: ("storage", type, key, location, number of elements)."""
        _tag, dtype, key, _location, _numel = reference
        if key not in self._storages:
            content = _read(self._archive, f"{self._root}data/{key}")
            storage = torch.frombuffer(bytearray(content), dtype=torch.uint8) if content else torch.empty(0)
            self._storages[key] = storage.view(dtype)
        return self._storages[key]


def _refusal(module: str, name: str) -> ModelError:
    if module.partition(".")[0] == "ultralytics":
        return ModelError(f"not a YOLOv5 v5.0-v7.0 checkpoint: it holds {module}.{name}, as YOLOv8 and later models do")
    return ModelError(
        f"refused, and nothing was run: its pickle names {module}.{name}, which no YOLOv5 v5.0-v7.0 checkpoint "
        'needs and which could run a command; if it is another model, use loader = "factory"; else do not trust it'
    )


def _read(archive: zipfile.ZipFile, name: str) -> bytes:
    if archive.getinfo(name).compress_type != zipfile.ZIP_STORED:
        raise zipfile.BadZipFile(f"{name} is compressed, which torch never does")
    return archive.read(name)


def _root_of(archive: zipfile.ZipFile) -> str:
    """Give the folder of the archive that holds the pickle. Raises `ModelError` on another kind of zip file."""
    names = archive.namelist()
    roots = [name.removesuffix("data.pkl") for name in names if name.count("/") == 1 and name.endswith("/data.pkl")]
    if not roots:
        raise ModelError("a zip file, but not one that torch.save wrote; expected a YOLOv5 checkpoint")
    if f"{roots[0]}constants.pkl" in names:
        raise ModelError("a TorchScript export; expected the checkpoint that it was exported from")
    if f"{roots[0]}byteorder" in names and _read(archive, f"{roots[0]}byteorder") != b"little":
        raise ModelError("written on a big-endian machine; save it again on a little-endian one")
    return roots[0]


def unpickle(content: bytes) -> Any:
    """Read the object that `torch.save` wrote, from the bytes of its file (torch's zip format).

    Tensors are tensors on the CPU, of the stored type; objects are `Stored`. Raises `ModelError`, without the
    file's name, where the pickle names what is not allowed, or the bytes are damaged.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            return _Unpickler(archive, _root_of(archive)).load()
    except ModelError:
        raise
    except Exception as error:  # a damaged or hostile file may raise anything
        raise ModelError(f"truncated or damaged ({type(error).__name__}: {error}); get the file again") from error
