from __future__ import annotations

import tomli

from qgate.config.lines import locate

NASTY = (
    r'''# [not.a.table]
schema_version = 1            # = 2
a.b . "c.d" = """
x = 1
[not]
\"""" # two quotes before the end
[ "q u" . 'v"' ]              # spaces, both kinds of quotes
w = ""
e = '' # empty
"\u00e9" = [ # ]
  "a]", {x = 1, y = {z.q = 3}},
  [1,
   2], # [
]
[[arr]]
x = 1
[[arr]]
s = '''
    + """'''
]] = [x]
'''''
y = 1979-05-27 07:32:00       # a date with a space
[arr.sub]
k = 1
[[arr.deep]]
z = 2

[[arr.deep]]
z = 3
[late.table.here]
[late]
"""
)


def test_every_kind_of_key_is_found() -> None:
    tomli.loads(NASTY)  # the text is valid: what is tested is the finder
    lines = locate(NASTY)
    assert lines == {
        ("schema_version",): 2,
        ("a",): 3,
        ("a", "b"): 3,
        ("a", "b", "c.d"): 3,
        ("q u",): 7,
        ("q u", 'v"'): 7,
        ("q u", 'v"', "w"): 8,
        ("q u", 'v"', "e"): 9,
        ("q u", 'v"', "é"): 10,
        ("q u", 'v"', "é", 0): 11,
        ("q u", 'v"', "é", 1): 11,
        ("q u", 'v"', "é", 1, "x"): 11,
        ("q u", 'v"', "é", 1, "y"): 11,
        ("q u", 'v"', "é", 1, "y", "z"): 11,
        ("q u", 'v"', "é", 1, "y", "z", "q"): 11,
        ("q u", 'v"', "é", 2): 12,
        ("q u", 'v"', "é", 2, 0): 12,
        ("q u", 'v"', "é", 2, 1): 13,
        ("arr",): 15,
        ("arr", 0): 15,
        ("arr", 0, "x"): 16,
        ("arr", 1): 17,
        ("arr", 1, "s"): 18,
        ("arr", 1, "y"): 21,
        ("arr", 1, "sub"): 22,
        ("arr", 1, "sub", "k"): 23,
        ("arr", 1, "deep"): 24,
        ("arr", 1, "deep", 0): 24,
        ("arr", 1, "deep", 0, "z"): 25,
        ("arr", 1, "deep", 1): 27,
        ("arr", 1, "deep", 1, "z"): 28,
        ("late",): 30,  # its own header, not that of the table below it
        ("late", "table"): 29,
        ("late", "table", "here"): 29,
    }


def test_every_path_of_the_parsed_value_has_a_line() -> None:
    assert set(locate(NASTY)) == set(_paths(tomli.loads(NASTY)))


def test_windows_line_ends_count_once() -> None:
    assert locate("a = 1\r\n\r\n[t]\r\nb = [\r\n 1]\r\n")[("t", "b", 0)] == 5


def test_a_last_line_without_a_line_end() -> None:
    assert locate("a = 1\nb = true")[("b",)] == 2


def _paths(value: object, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    children: list[tuple[str | int, object]] = []
    if isinstance(value, dict):
        children = list(value.items())
    elif isinstance(value, list):
        children = list(enumerate(value))
    below = [found for key, child in children for found in _paths(child, (*path, key))]
    return [path, *below] if path else below
