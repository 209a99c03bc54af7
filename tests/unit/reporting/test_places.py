from qgate.errors import DataError
from qgate.reporting.places import one_line


def test_a_place_that_is_a_uri_is_shown_whole_and_has_nothing_that_cannot_be_seen() -> None:
    shown = one_line(DataError("is \x1b]0;gone\x07", path="memory://bucket/a\x1b[2J.png"))

    assert shown == "memory://bucket/a\\x1b[2J.png: is \\x1b]0;gone\\x07"
