"""Which line of a TOML text says what.

Parsers that keep positions are rare and large; this only locates keys in a text that `tomli` has accepted.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from typing import TYPE_CHECKING

import tomli

if TYPE_CHECKING:
    from collections.abc import Mapping

Keys = tuple["str | int", ...]

_BLANK = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_KEY = re.compile(r"""[ \t]*("(?:\\.|[^"\\])*"|'[^']*'|[A-Za-z0-9_-]+)[ \t]*""")
_SCALAR = re.compile(
    r'''"""(?:\\.|[^\\])*?"""{1,3}|\'\'\'.*?\'\'\''{0,2}|"(?:\\.|[^"\\])*"|'[^']*'|[^,\]}#\r\n]+''',
    re.DOTALL,
)


def locate(text: str) -> Mapping[Keys, int]:
    """Map the path of each table, key and array element of a valid TOML text to its 1-based line."""
    return _Scanner(text).scan()


class _Scanner:
    def __init__(self, text: str) -> None:
        self._text = text
        self._position = 0
        self._newlines = [match.start() for match in re.finditer("\n", text)]
        self._lines: dict[Keys, int] = {}
        self._arrays: dict[Keys, int] = {}  # an array of tables, and the index of its last table

    def scan(self) -> dict[Keys, int]:
        table: Keys = ()
        while self._next() != "":
            if self._take("[["):
                table = self._header("]]", element=True)
            elif self._take("["):
                table = self._header("]", element=False)
            else:
                self._pair(table)
        return self._lines

    def _header(self, end: str, *, element: bool) -> Keys:
        line = self._line()
        *parents, last = self._dotted(end)
        table: Keys = ()
        for key in parents:
            table = self._latest((*table, key))
        table = (*table, last)
        if element:
            self._arrays[table] = self._arrays.get(table, -1) + 1
        return self._note(self._latest(table), line)

    def _latest(self, table: Keys) -> Keys:
        return (*table, self._arrays[table]) if table in self._arrays else table

    def _pair(self, table: Keys) -> None:
        line = self._line()
        path = self._note((*table, *self._dotted("=")), line)
        self._next()
        self._value(path)

    def _dotted(self, end: str) -> list[str]:
        keys = [self._key()]
        while self._take("."):
            keys.append(self._key())
        self._take(end)
        return keys

    def _key(self) -> str:
        key = self._match(_KEY).strip(" \t")
        return str(tomli.loads(f"key = {key}")["key"]) if key[0] in "\"'" else key

    def _value(self, path: Keys) -> None:
        if self._take("{"):
            while self._next() != "}":
                self._pair(path)
                self._comma()
            self._take("}")
        elif self._take("["):
            self._array(path)
        else:
            self._match(_SCALAR)

    def _array(self, path: Keys) -> None:
        index = 0
        while self._next() != "]":
            self._value(self._note((*path, index), self._line()))
            self._comma()
            index += 1
        self._take("]")

    def _comma(self) -> None:
        self._next()
        self._take(",")

    def _note(self, path: Keys, line: int) -> Keys:
        """Record the line of `path`, and for its parents where nothing else names them."""
        for length in range(1, len(path)):
            self._lines.setdefault(path[:length], line)
        self._lines[path] = line
        return path

    def _line(self) -> int:
        return bisect_left(self._newlines, self._position) + 1

    def _next(self) -> str:
        """Skip blanks and comments; give the character that follows, or "" at the end."""
        self._match(_BLANK)
        return self._text[self._position : self._position + 1]

    def _take(self, token: str) -> bool:
        found = self._text.startswith(token, self._position)
        self._position += len(token) * found
        return found

    def _match(self, pattern: re.Pattern[str]) -> str:
        match = pattern.match(self._text, self._position)
        if match is None:  # the scanner and tomli disagree: a mistake in here, not the user's
            raise AssertionError(f"no {pattern.pattern} at offset {self._position}")
        self._position = match.end()
        return match.group()
