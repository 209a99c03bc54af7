"""A parsed `qgate.toml`: its values, and where each of them stands."""

from __future__ import annotations

import difflib
import hashlib
import os
import re
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tomli

from qgate.config.lines import Keys, locate
from qgate.config.model import Place
from qgate.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

# For whom `qgate init` has no answer.
OWN_MODEL = 'for a model of your own code write the file by hand, with loader = "factory": docs/custom-models.md'

_VARIABLE = re.compile(r"\$\{([^}]*)\}")
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")


@dataclass(frozen=True)
class Document:
    """A parsed file; `sha256` is of its bytes, `lines` maps key paths to 1-based lines."""

    path: Path
    table: dict[str, Any]
    sha256: str
    lines: Mapping[Keys, int]
    text: str

    def line_of(self, keys: Keys) -> int:
        """Give the line of a key path, or of the nearest table above that has one; 1 for the file as a whole."""
        above = (keys[:length] for length in range(len(keys), 0, -1))
        return next((self.lines[path] for path in above if path in self.lines), 1)

    @property
    def root(self) -> Cursor:
        """Give the whole file's table."""
        return Cursor(self, (), self.table)


@dataclass(frozen=True)
class Cursor:
    """A value in a document, and the keys that lead to it."""

    document: Document
    keys: Keys
    value: Any

    @property
    def place(self) -> Place:
        """Say where the value stands."""
        return Place(self.document.path, self.document.line_of(self.keys))

    def child(self, key: str | int) -> Cursor:
        """Give the value of a key, or the element of an array."""
        return Cursor(self.document, (*self.keys, key), self.value[key])

    def table(self, key: str) -> Cursor:
        """Give the table of a key, an empty one where the key is left out."""
        return Cursor(self.document, (*self.keys, key), self.value.get(key, {}))

    def children(self) -> Iterator[tuple[str, Cursor]]:
        """Give the keys and values of a table, in file order."""
        return ((key, self.child(key)) for key in self.value)

    def error(self, message: str, *keys: str | int) -> ConfigError:
        """Make an error about the table that the cursor is at, on the line of `keys` below it where there are any."""
        header = f"[{_dotted(self.keys)}] " if self.keys else ""
        line = self.document.line_of((*self.keys, *keys))
        return ConfigError(header + message, path=shown(self.document.path), line=line)

    def value_error(self, message: str) -> ConfigError:
        """Make an error about the value of a key: its table is the header, the key comes before the message."""
        depth = max(index for index, key in enumerate(self.keys) if isinstance(key, str))
        table, label = Cursor(self.document, self.keys[:depth], None), self.keys[depth:]
        return table.error(f"{_dotted(label)}: {message}", *label)

    def anchored(self, path: Path) -> Path:
        """Resolve a path against the folder of the file, and `~`. Raises `ConfigError`."""
        try:
            return Path(os.path.normpath(self.document.path.parent / path.expanduser()))
        except RuntimeError as error:  # ~name of a user that does not exist
            raise self.value_error(f'"{path}": {error}') from None

    def only(self, known: Iterable[str]) -> None:
        """Reject a table's keys that are not among `known`."""
        known = tuple(known)
        for key in self.value:
            if key not in known:
                raise self.error(f'unknown key "{key}"; {did_you_mean(key, known)}', key)


def parse(path: Path, content: bytes | None = None) -> Document:
    """Read a `qgate.toml`, and put environment variables in; `content` is for the file's. Raises `ConfigError`."""
    content = _read(path) if content is None else content
    try:
        text = content.decode("utf-8-sig")
        table = tomli.loads(text)
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigError("is not UTF-8 text; save it as UTF-8", path=shown(path), line=line) from None
    except tomli.TOMLDecodeError as error:
        raise ConfigError(f"is not TOML: {error.msg}", path=shown(path), line=error.lineno) from None
    document = Document(path.absolute(), table, hashlib.sha256(content).hexdigest(), locate(text), text)
    return replace(document, table=_expand(document.root))


def shown(path: Path) -> Path:
    """Give a path as messages show it: relative to the working folder where it is below."""
    absolute = path.absolute()
    return absolute.relative_to(Path.cwd()) if absolute.is_relative_to(Path.cwd()) else absolute


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Suggest the known name that is closest, or list them all."""
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=1)
    return f'did you mean "{close[0]}"?' if close else f"expected one of {', '.join(known) or 'none'}"


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise ConfigError(f"there is no such file; {_instead(path)}", path=shown(path)) from None
    except IsADirectoryError:
        raise ConfigError("is a folder; expected a qgate.toml", path=shown(path)) from None
    except OSError as error:
        raise ConfigError(f"cannot be read ({error.strerror})", path=shown(path)) from None


def _instead(path: Path) -> str:
    """Say which file of that name in a folder above may be meant, or how to get one."""
    above = (folder / path.name for folder in path.absolute().parents[1:])
    meant = next((file for file in above if file.is_file()), None)
    if meant:
        return f"there is {meant}: run in its folder, or name it with --qgate-config (pytest) or --config (qgate)"
    return f"write one with `qgate init`, or {OWN_MODEL}"


def _expand(cursor: Cursor) -> Any:
    """Put environment variables into every string of a value."""
    value = cursor.value
    if isinstance(value, str):
        return _VARIABLE.sub(partial(_variable, cursor), value)
    if isinstance(value, dict):
        return {key: _expand(child) for key, child in cursor.children()}
    if isinstance(value, list):
        return [_expand(cursor.child(index)) for index in range(len(value))]
    return value


def _variable(cursor: Cursor, match: re.Match[str]) -> str:
    name = match[1]
    if name not in os.environ:
        raise cursor.value_error(f"the environment variable {name or '(without a name)'} is not set")
    return os.environ[name]


def _dotted(keys: Iterable[str | int]) -> str:
    """Write keys as TOML does, and the index of an array's element in brackets."""
    parts = (f"[{key}]" if isinstance(key, int) else f".{_quoted(key)}" for key in keys)
    return "".join(parts).removeprefix(".")


def _quoted(key: str) -> str:
    return key if _BARE_KEY.fullmatch(key) else f'"{key}"'
