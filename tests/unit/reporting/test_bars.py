from __future__ import annotations

import pytest

from qgate.reporting.bars import ASCII, UNICODE, Glyphs, Marks, interval_bar, share_bar, sparkline

# width 21 and values in steps of 0.05 on a scale from 0 to 1: one cell each
CEILING = Marks(measured=0.5, limit=0.75, interval=(0.25, 0.6), is_floor=False, from_zero=True)


def drawn(marks: Marks, width: int = 20, glyphs: Glyphs = ASCII) -> str:
    return "".join(char for char, _ in interval_bar(marks, width, glyphs))


def test_all_three_stand_where_they_are_on_one_scale() -> None:
    # from 0 to 0.825, a tenth beyond the limit: 33 cells of 0.025 each
    assert drawn(CEILING, 34) == "          [---------o---]     |..."
    assert drawn(CEILING, 34, UNICODE) == "          ├─────────●───┤     ┃░░░"


def test_a_floor_has_its_wrong_side_on_the_left() -> None:
    floor = Marks(measured=2.0, limit=1.5, interval=(1.75, 2.5), is_floor=True, from_zero=False)

    # from 1.4 to 2.5: 22 cells of 0.05
    assert drawn(floor, 23) == "..|    [----o---------]"


def test_the_part_of_an_interval_beyond_the_limit_is_told_apart() -> None:
    unsettled = Marks(measured=0.5, limit=0.75, interval=(0.25, 1.0), is_floor=False, from_zero=True)

    cells = interval_bar(unsettled, 21, ASCII)

    assert "".join(char for char, _ in cells) == "     [----o----|----]"
    assert [kind for _, kind in cells[5:]] == [
        *["held"] * 5, "measured", *["held"] * 4, "limit", *["missed"] * 5
    ]  # fmt: skip


def test_without_an_interval_the_scale_begins_at_zero() -> None:
    size = Marks(measured=0.75, limit=0.5, interval=None, is_floor=True, from_zero=False)

    assert drawn(size, 16) == "..........|    o"


def test_a_value_at_its_limit_has_a_mark_of_its_own() -> None:
    assert drawn(Marks(0.5, 0.5, None, is_floor=True, from_zero=False), 11) == "..........X"
    assert drawn(Marks(0.0, 0.0, None, is_floor=False, from_zero=True), 11) == "X.........."


@pytest.mark.parametrize("is_floor", [True, False])
@pytest.mark.parametrize("limit", [-1e300, -1.0, 0.0, 1e-300, 1.0])
@pytest.mark.parametrize("interval", [None, (-2.0, 5.0), (0.0, 0.0), (1.0, 1.0)])
def test_a_bar_is_as_wide_as_asked_for(is_floor: bool, limit: float, interval: tuple[float, float] | None) -> None:
    marks = Marks(1.0, limit, interval, is_floor=is_floor, from_zero=not is_floor)

    for width in (1, 2, 14, 40):
        assert len(drawn(marks, width)) == width


def test_shares() -> None:
    assert [share_bar(share, 10, ASCII) for share in (0.0, 0.001, 0.5, 1.0, 7.0)] == [
        *("", "#", "#####", "##########", "##########")
    ]


def test_a_line_of_values_rises_and_has_gaps() -> None:
    assert sparkline([1.0, 2.0, None, 8.0, 4.5], UNICODE) == "▁▂·█▅"
    assert sparkline([3.0, 3.0], UNICODE) == "▄▄"
    assert sparkline([None, None], ASCII) == ".."
    assert sparkline([], ASCII) == ""
