"""`qgate plugins new`: a plugin package that works as it is written, with a test."""

from __future__ import annotations

import ast
import builtins
import os
import re
import shutil
import tempfile
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING

from qgate.errors import PluginError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qgate.plugins import Registry

__all__ = ["KINDS", "write_plugin"]

_TEMPLATES = Path(__file__).parent / "templates"
_NAME = re.compile(r"[a-z][a-z0-9]*([-_][a-z0-9]+)*")


@dataclass(frozen=True)
class _Kind:
    """What a plugin of one kind is: its protocol, where that is, and what `qgate.toml` or a command says to use it."""

    protocol: str
    module: str
    usage: str


KINDS = {
    "metric": _Kind("Metric", "qgate.protocols", "[models.X.thresholds.{name}]\nlower_bound = 0.8"),
    "observer": _Kind(
        "Observer",
        "qgate.quantization.observers",
        '[models.X.quantization]\nactivation = {{ observer = "{name}", deviations = 4.0 }}',
    ),
    "calibrator": _Kind("Calibrator", "qgate.protocols", '[models.X.quantization]\ncalibrator = "{name}"'),
    "backend": _Kind("Backend", "qgate.protocols", '[models.X.quantization]\nbackend = "{name}"'),
    "loader": _Kind("Loader", "qgate.protocols", '[models.X]\nloader  = "{name}"\nweights = "net.pt"\nclasses = 4'),
    "dataset": _Kind(
        "Dataset",
        "qgate.protocols",
        '[models.X.data]\nformat      = "{name}"\ncalibration = {{ folder = "train", num_samples = 64 }}\n'
        'evaluation  = {{ folder = "val" }}',
    ),
    "reporter": _Kind("Reporter", "qgate.protocols", "# qgate report --format {name}"),
}


def write_plugin(name: str, kind: str, parent: Path, registry: Registry) -> Path:
    """Write the package `qgate-NAME` below `parent`, all of it or nothing, and give its folder.

    Raises `PluginError` where the name is none, is taken by a folder, a module, a plugin or another of its kind, or
    would hide what the package's own code needs.
    """
    _check_name(name)
    folder, word = parent / f"qgate-{name.replace('_', '-')}", name.replace("-", "_")
    _check_free(folder, word, kind, registry)
    _check_class(word, kind)
    try:
        temporary = Path(tempfile.mkdtemp(dir=parent, prefix=f".{folder.name}."))
    except OSError as error:
        raise _unwritable(folder, error) from error
    try:
        _write(temporary, _values(folder.name, word, kind))
        temporary.chmod(0o755)
        temporary.rename(folder)
    except OSError as error:
        raise _unwritable(folder, error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder


def _check_name(name: str) -> None:
    if name.startswith(("qgate-", "qgate_")):
        raise PluginError(f'"{name}": leave out "{name[:6]}", which goes before the name by itself: "{name[6:]}"')
    if not _NAME.fullmatch(name):
        raise PluginError(
            f'"{name}" cannot be a plugin\'s name; expected small letters and digits, a letter first, words joined by '
            'a dash: "word-errors"'
        )


def _check_free(folder: Path, word: str, kind: str, registry: Registry) -> None:
    if os.path.lexists(folder):
        raise PluginError("is there already, and stays as it is; choose another name", path=folder)
    if word in registry.plugins() or find_spec(f"qgate_{word}"):
        raise PluginError(f'"{word}" is the name of an installed plugin; choose another')
    registered = getattr(registry, f"{kind}s")
    if word in registered:
        raise PluginError(f'"{word}" is a {kind} of plugin "{registered.plugin_of(word)}"; choose another name')


def _check_class(word: str, kind: str) -> None:
    """Raise `PluginError` where the plugin's class cannot have its name, or would hide what its file uses."""
    name = _class_name(word)
    if hasattr(builtins, name) or name in _imported(kind):
        raise PluginError(
            f'"{word}" would name a class {name}, as Python or what its file imports does; choose another'
        )


def _imported(kind: str) -> set[str]:
    """Give the names that the files of a kind import."""
    values = _values("qgate-any-plugin", "any_plugin", kind)
    texts = [_filled(f"{file}.py.tmpl", values) for file in (kind, f"test_{kind}")]
    nodes = [node for text in texts for node in ast.walk(ast.parse(text))]
    imports = [node for node in nodes if isinstance(node, ast.Import | ast.ImportFrom)]
    return {alias.asname or alias.name for node in imports for alias in node.names}


def _class_name(word: str) -> str:
    return "".join(part.capitalize() for part in word.split("_"))


def _unwritable(folder: Path, error: OSError) -> PluginError:
    return PluginError(f"cannot be written: {error.strerror or error}; go to a folder that can be", path=folder)


def _values(distribution: str, word: str, kind: str) -> dict[str, str]:
    """Give what stands for each placeholder of the templates."""
    described = KINDS[kind]
    return {
        "name": word,
        "package": f"qgate_{word}",
        "distribution": distribution,
        "class_name": _class_name(word),
        "kind": kind,
        "protocol": described.protocol,
        "protocol_module": described.module,
        "usage": described.usage.format(name=word),
    }


def _write(folder: Path, values: dict[str, str]) -> None:
    for path, template in _files(values["package"], values["name"], values["kind"]):
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(_filled(template, values) if template else "", encoding="utf-8")


def _filled(template: str, values: dict[str, str]) -> str:
    return Template((_TEMPLATES / template).read_text(encoding="utf-8")).substitute(values)


def _files(package: str, name: str, kind: str) -> Iterator[tuple[str, str]]:
    """Give each file of the package, and the template that it is made of (none: it is empty)."""
    yield "pyproject.toml", "pyproject.toml.tmpl"
    yield "README.md", "README.md.tmpl"
    yield f"{package}/__init__.py", "__init__.py.tmpl"
    yield f"{package}/py.typed", ""
    yield f"{package}/{kind}.py", f"{kind}.py.tmpl"
    yield f"tests/test_{name}.py", f"test_{kind}.py.tmpl"
