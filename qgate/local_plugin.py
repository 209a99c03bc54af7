"""The `conftest.py` beside a `qgate.toml`: the plugin that a project writes for itself."""

from __future__ import annotations

import sys
from importlib.util import module_from_spec, spec_from_file_location
from typing import TYPE_CHECKING

from qgate.config.document import shown
from qgate.errors import PluginError

if TYPE_CHECKING:
    from pathlib import Path
    from types import ModuleType

FILE_NAME = "conftest.py"


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


def _import_file(path: Path) -> ModuleType:
    name = f"_qgate_conftest_{abs(hash(path.resolve())):x}"  # not "conftest": pytest has one of that name
    spec = spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"no loader for {path}")
    module = module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module
