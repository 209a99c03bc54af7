"""What a graph read from a file may name: operators on tensors, and nothing that reaches beyond them.

FX writes names into source code and runs it, so each must be a plain name. `getattr` is held to what tensors have:
a chain of free attributes ends in the modules of Python.
"""

from __future__ import annotations

import io
import keyword
import math
import operator
import re
import types
import zipfile
from typing import TYPE_CHECKING, Any

import torch

from qgate.errors import ArtifactError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["check_node", "checked_script", "function", "function_path", "is_identifier", "is_name"]

_OPERATORS = frozenset(
    {"add", "sub", "mul", "truediv", "floordiv", "mod", "neg", "pos", "pow", "matmul", "getitem", "eq", "ne", "abs"}
    | {"lt", "le", "gt", "ge", "and_", "or_", "xor", "invert", "lshift", "rshift", "iadd", "imul", "isub", "itruediv"}
)
_BUILTINS: dict[str, Callable[..., Any]] = {
    "getattr": getattr,
    "len": len,
    "int": int,
    "float": float,
    "max": max,
    "min": min,
}
_ATTRIBUTES = frozenset(
    {"shape", "dtype", "device", "layout", "ndim", "itemsize", "nbytes", "requires_grad", "is_cuda", "is_quantized"}
    | {"T", "mT", "H", "mH", "real", "imag", "data"}
    # of the named tuples that torch's functions return
    | {"values", "indices", "min", "max", "mode", "U", "S", "V", "Vh", "Q", "R", "L", "P", "LU", "pivots"}
    | {"eigenvalues", "eigenvectors", "sign", "logabsdet", "solution", "mantissa", "exponent"}
)
# Methods that torch writes in Python; every other one that is allowed is an ATen operator.
_METHODS = frozenset(
    {"float", "half", "double", "bfloat16", "int", "long", "short", "byte", "char", "bool", "type", "unique"}
    | {"ndimension", "nelement", "new_tensor", "tolist"}
)
# They read or write files, or take memory that is not a tensor's own.
_DENIED = frozenset({"from_file", "from_numpy", "frombuffer", "save", "set_"})
# TorchScript calls ATen as `torch.NAME`, and all other operators, of any extension that is loaded, as `ops.LIB.NAME`.
_SCRIPT_DENIED = re.compile(
    rb"\b(?:save|from_file|__setstate__|torch\s*\.\s*classes)\b|\bops\s*\.(?!(?:aten|prim|quantized)\.)\s*\w*"
)


def is_identifier(text: str) -> bool:
    """Say whether `text` may name a function, a method or an argument in source code."""
    return text.isidentifier() and not keyword.iskeyword(text) and not text.startswith("__")


def is_name(text: str) -> bool:
    """Say whether `text` may name an attribute of a module, which FX also reaches by getattr: "0_scale", "3"."""
    return re.fullmatch(r"\w+", text) is not None and not keyword.iskeyword(text) and not text.startswith("__")


def check_node(op: str, target: str, args: Any) -> None:
    """Raise `ArtifactError` where an artifact may not hold a node; `args` are JSON-able or decoded."""
    if op == "call_function":
        _check_function(target, args)
    elif op == "call_method" and not _is_method(target):
        raise ArtifactError(f"the graph calls method {target!r}, which an artifact cannot hold{_WAY_OUT}")
    elif op == "placeholder" and not is_identifier(target.removeprefix("*").removeprefix("*")):
        raise ArtifactError(f"the graph has an input that is not allowed: {target!r}")
    elif op in {"call_module", "get_attr"} and not all(map(is_name, target.split("."))):
        raise ArtifactError(f"the graph names a module or tensor that is not allowed: {target!r}")
    elif op not in {"call_method", "placeholder", "call_module", "get_attr"}:
        raise ArtifactError(f"the graph holds a node that is not allowed: {op!r}")


def function(path: str) -> Any:
    """Give the allowed function of that path, e.g. `torch.cat`. Raises `ArtifactError`."""
    found = _functions(path.rpartition(".")[2]).get(path)
    if found is None:
        raise ArtifactError(f"the graph calls {path!r}, which is not allowed")
    return found


def function_path(called: Any, node: str) -> str:
    """Give the path by which `function` finds `called`. Raises `ArtifactError` that names the node."""
    name = getattr(called, "__name__", str(called))
    for path, value in _functions(name).items():
        if value is called:
            return path
    module = getattr(called, "__module__", "?")
    raise ArtifactError(f'the graph calls {module}.{name} (node "{node}"), which an artifact cannot hold{_WAY_OUT}')


def checked_script(archive: bytes) -> bytes:
    """Give a TorchScript archive, written anew: torch must not find other files in it than were checked here.

    Raises `ArtifactError` where its code could reach a file, or runs on loading.
    """
    checked = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(archive)) as source, zipfile.ZipFile(checked, "w") as target:
        names = source.namelist()
        if len({name.lower() for name in names}) != len(names):
            raise ArtifactError("a TorchScript module in it has two files of one name")
        for name in names:
            content = source.read(name)
            # torch finds files in whichever case their names are.
            found = _SCRIPT_DENIED.search(content) if name.lower().endswith((".py", ".pkl")) else None
            if found:
                raise ArtifactError(f"a TorchScript module in it uses {found[0].decode()!r}, which is not allowed")
            target.writestr(name, content)
    return checked.getvalue()


_WAY_OUT = "; put that into a module and add it to `non_traceable`"


def _check_function(target: str, args: Any) -> None:
    function(target)
    if target == "builtins.getattr" and args[1] not in _ATTRIBUTES:
        raise ArtifactError(f"the graph reads attribute {args[1]!r}, which an artifact cannot hold{_WAY_OUT}")


def _is_method(name: str) -> bool:
    if not is_identifier(name) or name.startswith("_") or name in _DENIED or not hasattr(torch.Tensor, name):
        return False
    return name in _METHODS or bool(torch._C._jit_get_schemas_for_operator(f"aten::{name}"))


def _functions(name: str) -> dict[str, Any]:
    """Give every allowed function of that name, by its full path."""
    if not is_identifier(name) or name.startswith("_") or name in _DENIED:
        return {}
    found = {
        f"operator.{name}": getattr(operator, name, None) if name in _OPERATORS else None,
        f"builtins.{name}": _BUILTINS.get(name),
        f"math.{name}": getattr(math, name, None),
        f"torch.{name}": getattr(torch, name, None) if _is_tensor_function(name) else None,
        f"torch._C._nn.{name}": getattr(torch._C._nn, name, None),
        f"torch.nn.functional.{name}": _functional(name),
    }
    return {path: value for path, value in found.items() if callable(value)}


def _is_tensor_function(name: str) -> bool:
    """Say whether `torch.NAME` is one of the operators themselves, not e.g. `torch.load` or `torch.compile`."""
    return hasattr(torch._C._VariableFunctions, name) or name in torch.functional.__all__


def _functional(name: str) -> Any:
    """Give `torch.nn.functional.NAME` where it is a function of that module, not a helper that it imports."""
    value = getattr(torch.nn.functional, name, None)
    own = isinstance(value, types.BuiltinFunctionType) or getattr(value, "__module__", None) == "torch.nn.functional"
    return value if own else None
