from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest

from qgate.reporting.console import render
from qgate.reporting.markdown import MarkdownReporter
from qgate.results import ModelResult, Result, Verdict

REASON = (
    "fell by 0.0231 from float32's 0.3393, to 0.3162; allowed is 0.0150. The worst class is person, "
    "see /home/someone/a/long/path/that/is/wider/than/the/terminal/because/it/goes/on/and/on/results.json"
)
METRICS: dict[str, dict[str, Any]] = {
    "map": {"baseline": 0.3393, "candidate": 0.3162, "drop": 0.0231},
    "size_reduction": {"baseline": 186_614_932, "candidate": 47_969_383, "value": 0.743},
    "speedup": {
        "baseline": 0.1031,
        "candidate": 0.0707,
        "value": 1.45,
        "baseline_form": "channels_last",
        "forms": {"eager": 0.1231, "channels_last": 0.1031, "frozen": 0.1055, "int8": 0.0707},
    },
}
VERDICTS = (
    Verdict("size_reduction", "lower_bound", 0.7, 0.743, "passed"),
    Verdict("speedup", "lower_bound", 1.4, 1.45, "inconclusive", "the interval holds the limit", interval=(1.3, 1.5)),
    Verdict("map", "max_drop", 0.015, 0.0231, "failed", REASON, interval=(0.0171, 0.0292)),
    Verdict("map", "max_drop", 0.05, 0.01, "passed", slice={"class": "traffic light"}),
    Verdict("map", "max_regression", 0.005, None, "error", "there are no blessed results to compare with"),
    Verdict("map", "lower_bound", 0.3, 0.3162, "passed"),
)
SECONDS = {"load": 0.2, "calibrate": 17.0, "evaluate": 122.9, "metrics": 0.01, "timing": 60.2, "total": 206.8}


def make_result(*verdicts: Verdict) -> Result:
    model = ModelResult({"approach": "ptq", "backend": "fbgemm"}, None, 128, METRICS, verdicts, SECONDS)
    return Result("0.1.0", "2026-01-01T00:00:00+00:00", "0" * 64, {}, {"yolov5n": model})


BAR = "├─┤●┃◆░"


def row_of(text: str, name: str) -> list[str]:
    """Give the cells of a limit's row, the bar left out."""
    (line,) = [line for line in text.splitlines() if line.startswith(f"{name} ")]
    return line.removeprefix(name).translate(dict.fromkeys(map(ord, BAR), " ")).split()


def test_the_worst_limit_comes_first() -> None:
    text = render(make_result(*VERDICTS), width=100)

    starts = [text.index(f"\n{name} ") for name in ("map max_regression", "map max_drop", "speedup lower_bound")]
    passed = [text.index(f"\n{name}") for name in ("map lower_bound", "size_reduction lower_bound", "map[class")]
    assert starts + passed == sorted(starts + passed)  # margins of 5%, 6% and 80% of the limit


def test_a_margin_is_what_is_left_of_the_limit_on_either_side() -> None:
    text = render(make_result(*VERDICTS), width=200)

    assert row_of(text, "map max_drop") == [
        *("0.3393", "0.3162", "0.0231", "0.0171..0.0292", "<=", "0.015", "-0.0081", "failed")
    ]
    assert row_of(text, "map lower_bound") == ["0.3393", "0.3162", "0.3162", ">=", "0.3", "+0.0162", "passed"]
    assert row_of(text, "speedup lower_bound") == [
        *("103.1", "ms", "70.7", "ms", "1.45x", "1.30x..1.50x", ">=", "1.4x", "+0.05x", "inconclusive")
    ]
    size = row_of(text, "size_reduction lower_bound")
    assert size == ["186.61", "MB", "47.97", "MB", "74.3%", ">=", "70%", "+4.3%", "passed"]
    assert row_of(text, "map max_regression") == ["0.3393", "0.3162", "-", "<=", "0.005", "-", "error"]


def test_a_slice_does_not_borrow_the_whole_set_s_figures() -> None:
    text = render(make_result(*VERDICTS), width=200)

    assert row_of(text, "map[class=traffic light] max_drop") == ["-", "-", "0.0100", "<=", "0.05", "+0.0400", "passed"]


@pytest.mark.parametrize("width", [100, 120, 140])
def test_rows_are_not_wrapped_and_words_are_not_cut(width: int) -> None:
    verdicts = VERDICTS[:3] + VERDICTS[4:]  # the name of a slice may be too long for any terminal
    text = render(make_result(*verdicts), width=width)

    longest_word = max(map(len, REASON.split()))
    assert all(len(line) <= max(width, longest_word + len("failed: ")) for line in text.splitlines())
    for verdict in verdicts:
        assert re.search(rf"^{verdict.metric} {verdict.limit} .* {verdict.status}$", text, re.MULTILINE)
    assert set(REASON.split()) <= set(text.split())
    assert " ".join(REASON.split()) in " ".join(text.split())


def test_eighty_columns_hold_the_intervals_and_wrap_only_names() -> None:
    text = render(make_result(*VERDICTS[:3], *VERDICTS[4:]), width=80)

    assert all(len(line) <= 80 for line in text.splitlines() if "/home/someone" not in line)
    figures = {
        "map max_drop": "0.3393 0.3162 0.0231 <= 0.015 failed",
        "speedup": "103.1 ms 70.7 ms 1.45x >= 1.4x inconclusive",
        "size_reduction": "186.61 MB 47.97 MB 74.3% >= 70% passed",
    }
    for name, expected in figures.items():
        assert " ".join(row_of(text, name)) == expected
    lines = text.splitlines()
    below = {
        " ".join(line.split()[:2]): lines[index + 1].split()
        for index, line in enumerate(lines)
        if " <= " in line or " >= " in line
    }
    assert below["map max_drop"] == ["0.0171..0.0292"]
    assert below["speedup 103.1"] == ["lower_bound", "1.30x..1.50x"]


@pytest.mark.parametrize("width", [80, 120])
def test_a_name_wider_than_the_terminal_leaves_the_figures_whole(width: int) -> None:
    wide = replace(VERDICTS[2], slice={"class": "a very long name of a class " * 5 + "x" * width})

    text = render(make_result(wide), width=width)

    assert "0.0171..0.0292" in text
    (row,) = [line for line in text.splitlines() if "<= 0.015" in line]
    assert row.endswith(("<= 0.015 failed", "-0.0081 failed"))
    table = text[text.index("\nlimit ") : text.index("failed: ")]
    assert all(len(line) <= width for line in table.splitlines())


def test_an_interval_is_in_the_unit_of_what_was_measured() -> None:
    gain = replace(VERDICTS[2], measured=-0.001, interval=(-0.004, 0.0013))
    faster = replace(VERDICTS[1], interval=(1.304, 1.5))

    text = render(make_result(gain, faster), width=120)

    assert "-0.0040..0.0013" in text
    assert "1.30x..1.50x" in text


def test_a_slice_shows_its_own_figures() -> None:
    figures = {"where": {"class": "traffic light"}, "baseline": 0.6, "candidate": 0.59, "support": 40}
    made = make_result(VERDICTS[3])
    metrics = {"map": {**METRICS["map"], "limited_slices": [figures]}}

    text = render(made.with_model("yolov5n", replace(made.models["yolov5n"], metrics=metrics)), width=120)

    assert row_of(text, "map[class=traffic light] max_drop")[:3] == ["0.6000", "0.5900", "0.0100"]


def test_a_figure_stays_with_its_name() -> None:
    for width in range(40, 90):
        text = render(make_result(*VERDICTS), width=width)
        for pair in ("channels_last 103.1 ms", "evaluate 122.9 s", "yolov5n speedup lower_bound"):
            assert pair in text, width


def test_steps_too_short_to_show_are_left_out() -> None:
    text = render(make_result(*VERDICTS))

    assert "time: evaluate 122.9 s, timing 60.2 s, calibrate 17.0 s, load 0.2 s" in text
    assert "metrics 0" not in text


@pytest.mark.parametrize(
    ("verdicts", "expected"),
    [
        (VERDICTS[:1], "qgate: PASSED, 1 limit held"),
        (VERDICTS[:2], "qgate: INCONCLUSIVE, 1 of 2 limits not held: yolov5n speedup lower_bound"),
        (VERDICTS[:3], "qgate: FAILED, 2 of 3 limits not held: yolov5n speedup lower_bound, yolov5n map max_drop"),
        ((), "qgate: FAILED, nothing was judged"),
    ],
)
def test_the_first_line_is_the_verdict(verdicts: tuple[Verdict, ...], expected: str) -> None:
    assert render(make_result(*verdicts), width=200).splitlines()[0] == expected


def test_limits_that_share_a_reason_share_a_line() -> None:
    lost = [replace(verdict, status="error", measured=None, message="the disk is full") for verdict in VERDICTS[:3]]

    text = render(make_result(*lost), width=200)

    assert text.count("the disk is full") == 1
    assert "error: size_reduction lower_bound, speedup lower_bound, map max_drop: the disk is full" in text


def test_colour_is_only_there_where_it_is_wanted() -> None:
    assert "\x1b[" in render(make_result(*VERDICTS), color=True)
    assert "\x1b[" not in render(make_result(*VERDICTS), color=False)


def test_markdown_is_a_table_whose_cells_hold_no_markup(capsys: pytest.CaptureFixture[str]) -> None:
    MarkdownReporter().write(make_result(replace(VERDICTS[2], message="a|b *c* <d>")), None)

    out = capsys.readouterr().out
    assert "| map max\\_drop | 0.3393 | 0.3162 | 0.0231 | 0.0171..0.0292 | \\<= 0.015 | -0.0081 | **failed** |\n" in out
    assert "| float32 | int8 | measured | interval | required | margin | verdict |\n" in out
    assert "a\\|b \\*c\\* \\<d\\>" in out
    assert "\N{NO-BREAK SPACE}" not in out
