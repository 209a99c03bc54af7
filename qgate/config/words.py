"""Types and values in words, for messages."""

from __future__ import annotations

import datetime
import json
import types
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

_NOUNS: dict[Any, tuple[str, str]] = {
    str: ("a string", "strings"),
    int: ("an integer", "integers"),
    float: ("a finite number", "finite numbers"),
    bool: ("true or false", "booleans"),
    Path: ("a path", "paths"),
}


def is_union(annotation: Any) -> bool:
    """Tell `X | Y` and `Optional[X]` from other types."""
    return get_origin(annotation) in (Union, types.UnionType)


def describe_type(annotation: Any) -> str:
    """Say what a type takes, e.g. `true or false, or "auto"`."""
    if get_origin(annotation) is Literal:
        return " or ".join(_literal(value) for value in get_args(annotation))
    if is_union(annotation):
        return ", or ".join(describe_type(option) for option in get_args(annotation) if option is not types.NoneType)
    if get_origin(annotation) is tuple:
        return _describe_tuple(get_args(annotation))
    return _NOUNS.get(annotation, ("a table", ""))[0]


def describe_value(value: Any) -> str:
    """Say what a TOML value is, e.g. `the string "640"`."""
    if isinstance(value, dict):
        return "a table"
    if isinstance(value, list):
        return "an array"
    if isinstance(value, (datetime.date, datetime.time)):
        return f"the date or time {value}"
    noun = {str: "the string ", int: "the integer ", float: "the number "}.get(type(value), "")
    return noun + _literal(value)


def _describe_tuple(elements: tuple[Any, ...]) -> str:
    count = "" if elements[-1] is Ellipsis else f"{len(elements)} "
    plurals = {_NOUNS.get(element, ("", "values"))[1] for element in elements if element is not Ellipsis}
    return f"an array of {count}{plurals.pop() if len(plurals) == 1 else 'values'}"


def _literal(value: Any) -> str:
    """Write a scalar as TOML does."""
    return json.dumps(value, ensure_ascii=False) if isinstance(value, (str, bool)) else str(value)
