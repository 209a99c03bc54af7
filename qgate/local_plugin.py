"""The `conftest.py` beside a `qgate.toml`: the plugin that a project writes for itself."""

from __future__ import annotations

import hashlib
import sys
from importlib.util import module_from_spec, spec_from_file_location
from typing import TYPE_CHECKING

from qgate.config.document import shown
from qgate.errors import PluginError

if TYPE_CHECKING:
    from pathlib import Path
    from types import ModuleType

FILE_NAME = "conftest.py"
_PREFIX = "_qgate_conftest_"  # not "conftest" alone: pytest has one of that name


def load_local_plugin(folder: Path) -> list[tuple[object, str]]:
    """Import `conftest.py` of `folder`, where there is one, as a plugin and its name.

    As under pytest, it may import its neighbours. Raises `PluginError` where it cannot be imported.
    """
    path = folder / FILE_NAME
    if not path.is_file():
        return []
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
    try:
        return [(_import_file(path), str(shown(path)))]
    except Exception as error:
        raise PluginError(f"cannot be imported: {type(error).__name__}: {error}", path=path) from error


def stable_module_name(name: str) -> str:
    """Give a module's name; that of a `conftest.py`, which pytest and qgate import by different ones, is "conftest"."""
    inside = name.rpartition(".")[2]
    return "conftest" if inside == "conftest" or inside.startswith(_PREFIX) else name


def _import_file(path: Path) -> ModuleType:
    name = _PREFIX + hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:16]
    spec = spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"no loader for {path}")
    module = module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module
