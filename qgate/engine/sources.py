"""Which code a run is made of, as a hash: other code may compute other results."""

from __future__ import annotations

import hashlib
import re
import sys
import sysconfig
from importlib.machinery import EXTENSION_SUFFIXES
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from types import ModuleType

__all__ = ["code_sha256", "installed_software"]

_SUFFIXES = (".py", *EXTENSION_SUFFIXES)
_IMPORT = re.compile(r"^[ \t]*(?:from[ \t]+(\w+)|import[ \t]+(\w[\w., \t]*))", re.MULTILINE)


def code_sha256(plugins: Iterable[ModuleType], others: Iterable[str]) -> str:
    """Hash the source files of plugins, of the modules named, and of what all these import.

    A package counts with all its files, and each file by name and content, wherever it lies. What is installed counts
    by its version (`installed_software`); only plugins count by their files even so.
    """
    plugins = list(plugins)
    files = {Path(module.__file__) for module in plugins if module.__file__}
    files |= {path for module in plugins for root in _roots(_top(module.__name__)) for path in _sources(root)}
    seen: set[str] = set()
    waiting = {_top(name) for name in others} | _imported(files)
    while waiting:
        seen |= waiting
        roots = [root for name in waiting for root in _roots(name) if not _is_installed(root)]
        found = {path for root in roots for path in _sources(root)} - files
        files |= found
        waiting = _imported(found) - seen
    each = sorted(f"{path.name} {hashlib.sha256(path.read_bytes()).hexdigest()}" for path in files)
    return hashlib.sha256("\n".join(each).encode()).hexdigest()


def installed_software() -> list[str]:
    """List the distributions on the import path with their versions, as their folders are named."""
    folders = {Path(entry or ".") for entry in sys.path}
    return sorted({path.stem for folder in folders for path in folder.glob("*.dist-info")})


def _roots(name: str) -> list[Path]:
    """Give the folders of a top-level package, or the file of a module, without importing it."""
    try:
        spec = find_spec(name)
    except (ImportError, ValueError):  # of "__main__", say, nothing is known
        return []
    if spec is None:
        return []
    if spec.submodule_search_locations is not None:
        return [Path(folder) for folder in spec.submodule_search_locations]
    return [Path(spec.origin)] if spec.has_location and spec.origin else []


def _sources(root: Path) -> Iterator[Path]:
    if root.is_file():
        yield root
    yield from (path for path in root.rglob("*") if path.name.endswith(_SUFFIXES) and path.is_file())


def _imported(files: Iterable[Path]) -> set[str]:
    """Name the top-level modules that files import, at whatever place."""
    texts = (path.read_text(encoding="utf-8", errors="replace") for path in files if path.suffix == ".py")
    statements = (source or listed for text in texts for source, listed in _IMPORT.findall(text))
    return {_top(part.split()[0]) for statement in statements for part in statement.split(",") if part.strip()}


def _top(name: str) -> str:
    return name.partition(".")[0]


def _is_installed(root: Path) -> bool:
    folders = map(sysconfig.get_path, ("stdlib", "platstdlib", "purelib", "platlib"))
    return any(root.is_relative_to(folder) for folder in folders)
