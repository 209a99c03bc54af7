"""TOML values -> typed Python values: the fields of a frozen dataclass are the keys of its table."""

from __future__ import annotations

import inspect
import operator
import sys
from contextlib import suppress
from dataclasses import MISSING, Field, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from qgate.config.words import describe_type, describe_value, is_union
from qgate.errors import PluginError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from qgate.config.document import Cursor

T = TypeVar("T")

# Keywords of JSON Schema that a field's metadata may hold, and what they demand in words.
BOUNDS: dict[str, tuple[Callable[[Any, Any], bool], str]] = {
    "minimum": (operator.ge, "at least"),
    "exclusiveMinimum": (operator.gt, "greater than"),
    "maximum": (operator.le, "at most"),
    "exclusiveMaximum": (operator.lt, "less than"),
}


REQUIRED = object()


@dataclass(frozen=True)
class Key:
    """One key that a table takes: its type, its default (`REQUIRED` where there is none) and its bounds.

    A path may be a URI as well where `uri` says so.
    """

    name: str
    type: Any
    default: Any = REQUIRED
    bounds: Mapping[str, float] = field(default_factory=dict)
    uri: bool = False


class _MismatchError(Exception):
    """A value is not of the type that it should be; caught in this module."""


def keys_of(cls: type) -> tuple[Key, ...]:
    """List the keys that a dataclass takes. Raises `PluginError` where it is none, or annotations do not resolve."""
    if not is_dataclass(cls):
        raise PluginError(f"{cls.__module__}.{cls.__qualname__} must be a dataclass: its fields are keys of qgate.toml")
    hints = _resolve_hints(cls)
    return tuple(_key_of(item, hints[item.name]) for item in fields(cls) if item.init)


def options_of(cls: type, base: type) -> tuple[Key, ...]:
    """List the keyword-only constructor parameters of `cls`, and of its parents below `base` that it passes them to."""
    keys: dict[str, Key] = {}
    constructors = (vars(parent).get("__init__") for parent in cls.__mro__[: cls.__mro__.index(base)])
    for constructor in filter(None, constructors):
        keys = {key.name: key for key in _parameters(constructor)} | keys
        if not _passes_on(constructor):
            break
    return tuple(keys.values())


def bind_table(cursor: Cursor, cls: type[T], *, others: Iterable[str] = (), **given: Any) -> T:
    """Make a `cls` of a table; `others` are keys that someone else reads, `given` are fields that are not keys.

    A `ValueError` of the dataclass' own `__post_init__` becomes an error at the table. Raises `ConfigError`.
    """
    values = bind_keys(cursor, [key for key in keys_of(cls) if key.name not in given], others)
    try:
        return cls(**values, **given)
    except ValueError as error:
        raise cursor.error(str(error)) from None


def bind_keys(cursor: Cursor, keys: Iterable[Key], others: Iterable[str] = ()) -> dict[str, Any]:
    """Read each of `keys` from a table that holds no further ones than `others`. Raises `ConfigError`."""
    keys = tuple(keys)
    expect_table(cursor).only([*(key.name for key in keys), *others])
    return {key.name: bind_key(cursor, key) for key in keys}


def bind_key(cursor: Cursor, key: Key) -> Any:
    """Read one key of a table, or its default. Raises `ConfigError`."""
    if key.name in cursor.value:
        child = cursor.child(key.name)
        if key.uri and isinstance(child.value, str) and "://" in child.value:
            return _opened_uri(child)
        return _bounded(child, convert(child, key.type), key.bounds)
    if key.default is REQUIRED:
        raise cursor.error(f'lacks the key "{key.name}": {describe_type(key.type)}')
    return cursor.anchored(key.default) if isinstance(key.default, Path) else key.default


def convert(cursor: Cursor, annotation: Any) -> Any:
    """Give the cursor's value as the type that `annotation` says. Raises `ConfigError`."""
    try:
        return _convert(cursor, annotation)
    except _MismatchError:
        expected, got = describe_type(annotation), describe_value(cursor.value)
        raise cursor.value_error(f"expected {expected}, got {got}") from None


def expect_table(cursor: Cursor) -> Cursor:
    """Give the cursor back where it is at a table. Raises `ConfigError`."""
    convert(cursor, dict[str, Any])
    return cursor


def _key_of(item: Field[Any], annotation: Any) -> Key:
    default = item.default if item.default_factory is MISSING else item.default_factory()
    default = REQUIRED if default is MISSING else default
    bounds = {name: item.metadata[name] for name in BOUNDS if name in item.metadata}
    return Key(item.name, annotation, default, bounds, uri=item.metadata.get("uri", False))


def _opened_uri(cursor: Cursor) -> Any:
    """Give a `upath.UPath`, which has the methods of `pathlib.Path`. Raises `ConfigError`."""
    try:
        from upath import UPath
    except ImportError:
        raise cursor.value_error(f'"{cursor.value}" needs universal-pathlib; install pytest-qgate[uri]') from None
    try:
        path = UPath(cursor.value)
        path.fs  # noqa: B018  # finds the protocol's package
    except (ImportError, ValueError) as error:
        raise cursor.value_error(f'"{cursor.value}": {error}') from None
    return path


def _parameters(constructor: Callable[..., None]) -> list[Key]:
    hints = _resolve_hints(constructor)
    parameters = inspect.signature(constructor).parameters.values()
    return [
        Key(item.name, hints.get(item.name, Any), REQUIRED if item.default is item.empty else item.default)
        for item in parameters
        if item.kind is item.KEYWORD_ONLY
    ]


def _passes_on(constructor: Callable[..., None]) -> bool:
    return any(item.kind is item.VAR_KEYWORD for item in inspect.signature(constructor).parameters.values())


def _resolve_hints(owner: Any) -> dict[str, Any]:
    """Resolve annotations; `Path` may have been imported for type checkers only, as linters advise."""
    # A class of one of several conftest.py: `sys.modules` has only the one imported last.
    names = getattr(owner.__init__, "__globals__", {})
    try:
        return get_type_hints(owner, localns={"Path": Path, **names})
    except NameError as error:
        name = f"{owner.__module__}.{owner.__qualname__}"
        raise PluginError(f"{name}: {error}; import it at run time, not for type checkers only") from None


def _convert(cursor: Cursor, annotation: Any) -> Any:
    value, options = cursor.value, get_args(annotation)
    if annotation is Any:
        return value
    if is_union(annotation):
        return _convert_union(cursor, options)
    if get_origin(annotation) is Literal:
        _require(any(type(value) is type(option) and value == option for option in options))
        return value
    return _convert_container(cursor, annotation)


def _convert_union(cursor: Cursor, options: tuple[Any, ...]) -> Any:
    for option in options:
        with suppress(_MismatchError):
            return _convert(cursor, option)
    raise _MismatchError


def _convert_container(cursor: Cursor, annotation: Any) -> Any:
    if get_origin(annotation) is tuple:
        return _convert_tuple(cursor, get_args(annotation))
    if get_origin(annotation) is dict:
        _require(isinstance(cursor.value, dict))
        return {key: convert(child, get_args(annotation)[1]) for key, child in cursor.children()}
    if isinstance(annotation, type) and is_dataclass(annotation):
        _require(isinstance(cursor.value, dict))
        return bind_table(cursor, annotation)
    return _convert_scalar(cursor, annotation)


def _convert_tuple(cursor: Cursor, elements: tuple[Any, ...]) -> tuple[Any, ...]:
    _require(isinstance(cursor.value, list))
    if elements[-1] is Ellipsis:
        elements = elements[:1] * len(cursor.value)
    _require(len(elements) == len(cursor.value))
    return tuple(convert(cursor.child(index), element) for index, element in enumerate(elements))


def _convert_scalar(cursor: Cursor, annotation: Any) -> Any:
    value = cursor.value
    if annotation is Path:
        _require(isinstance(value, str))
        return cursor.anchored(Path(value))
    if annotation is float:
        _require(type(value) in (int, float) and abs(value) <= sys.float_info.max)
        return float(value)
    if annotation not in (str, int, bool, type(None)):
        raise PluginError(f'the type {annotation!r} of the key "{cursor.keys[-1]}" is not one that qgate.toml can hold')
    _require(type(value) is annotation)
    return value


def _require(fits: bool) -> None:
    if not fits:
        raise _MismatchError


def _bounded(cursor: Cursor, value: Any, bounds: Mapping[str, float]) -> Any:
    if not isinstance(value, (int, float)):
        return value  # as in JSON Schema: "auto" has no bounds
    demands = " and ".join(f"{BOUNDS[name][1]} {bound:g}" for name, bound in bounds.items())
    if not all(BOUNDS[name][0](value, bound) for name, bound in bounds.items()):
        raise cursor.value_error(f"must be {demands}, got {value!r}")
    return value
