"""A changed recipe, written into the text of a `qgate.toml` that keeps its comments and its order."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import tomlkit
from tomlkit.exceptions import TOMLKitError
from tomlkit.items import InlineTable

from qgate.errors import ConfigError
from qgate.files import write_atomically

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from tomlkit.container import Container
    from tomlkit.items import Table

__all__ = ["with_recipe", "write_recipe"]


def write_recipe(path: Path, model: str, recipe: Mapping[str, Any]) -> None:
    """Write `with_recipe` of a `qgate.toml` in its place, atomically; nothing where `recipe` is empty.

    Raises `ConfigError` where the file cannot be written.
    """
    if not recipe:
        return
    try:
        place = path.resolve()  # a link stays one
        mode = place.stat().st_mode
        write_atomically(place, with_recipe(place.read_bytes().decode(), model, recipe).encode())
        place.chmod(mode)
    except (TOMLKitError, UnicodeDecodeError, KeyError) as error:
        raise ConfigError(f"has changed since it was read ({error}); it is to say {recipe}", path=path) from error
    except OSError as error:
        raise ConfigError(f"cannot be written: {error.strerror or error}; it is to say {recipe}", path=path) from error


def with_recipe(text: str, model: str, recipe: Mapping[str, Any]) -> str:
    """Give `text` with the keys of `[models.MODEL.quantization]` set to `recipe`; a value of None removes its key.

    A value that is a mapping replaces the keys that it names and leaves others of that table. Keys that are equal
    already keep even their spelling.
    """
    document = tomlkit.parse(text)
    table = document["models"][model]
    if "quantization" not in table:
        table["quantization"] = tomlkit.inline_table() if isinstance(table, InlineTable) else tomlkit.table()
    _update(table["quantization"], recipe)
    return tomlkit.dumps(document)


def _update(table: Table | InlineTable | Container, values: Mapping[str, Any]) -> None:
    for key, value in values.items():
        if value is None:
            table.pop(key, None)
        elif isinstance(value, dict) and key in table:
            _update(table[key], value)
        elif key not in table or table[key] != value:
            table[key] = _inline(value) if isinstance(value, dict) else value


def _inline(values: Mapping[str, Any]) -> InlineTable:
    table = tomlkit.inline_table()
    table.update({key: value for key, value in values.items() if value is not None})
    return table
