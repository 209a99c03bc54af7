"""Names and messages that would break a careless report, read back from each text format."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest
from hostile import HOSTILE, hostile_result
from markdown_it import MarkdownIt
from rich.cells import cell_len

from qgate.config.model import Place, QuantizationConfig
from qgate.engine.accuracy import AccuracyExplanation, Worth
from qgate.engine.changes import compare
from qgate.engine.explain import Explanation
from qgate.engine.tuning.search import Attempt, Tuned
from qgate.engine.tuning.trials import Figure, Trial
from qgate.history import History
from qgate.quantization.operations import Operation
from qgate.quantization.profile import LayerTime, NodeTime, Profile
from qgate.quantization.sensitivity import LayerNoise, Power
from qgate.reporting.accuracy import as_text as accuracy_as_text
from qgate.reporting.changes import as_text as changes_as_text
from qgate.reporting.console import render
from qgate.reporting.explain import as_text as explain_as_text
from qgate.reporting.github import annotation_lines
from qgate.reporting.gitlab import GitlabReporter
from qgate.reporting.history import as_text as history_as_text
from qgate.reporting.junit import properties, run_properties
from qgate.reporting.markdown import MAX_CHARACTERS, markdown
from qgate.reporting.text import printable
from qgate.reporting.tune import as_text as tune_as_text
from qgate.results import load_results

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from markdown_it.token import Token

    from qgate.results import Result


def in_pair(text: str) -> Result:
    """Give a result whose two models are shown side by side."""
    result = hostile_result(text)
    return hostile_result(text, models={**result.models, f"{text} too": next(iter(result.models.values()))})


def explained(text: str) -> str:
    node = NodeTime(text, Operation(text, "kernel", text), 0.001, text)
    profile = Profile((LayerTime(text, 0.002, (node,)),), 0.002, 0.001, 0.001, 3)
    return explain_as_text(text, Explanation(text, text, 1, 1.0, False, {text: 1}, profile), width=2000)


def explained_accuracy(text: str) -> str:
    values = {text: 0.5}
    worth = Worth(text, values, values, {text: values})
    layers = (LayerNoise(text, Power(), Power()),)
    return accuracy_as_text(text, AccuracyExplanation(text, text, 1, 0.1, layers, worth), width=2000)


def tuned(text: str) -> str:
    recipe = QuantizationConfig(Place(None, None))
    attempts = [
        Attempt(text, Trial(recipe, Figure(text, 0.5, "", 1, True), bytes=1)),
        Attempt(text, Trial(recipe, failure=text)),
    ]
    return tune_as_text(text, Tuned(text, attempts, attempts[0], 0, 1, 1.0), width=2000)


each_text = pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))

SGR = re.compile(r"\x1b\[[0-9;]*m")  # what colours are made of


def as_compared(result: Result, **terminal: Any) -> str:
    return changes_as_text(compare(result, result, 0.95), ("a.json", "b.json"), **terminal)


def as_history(result: Result, **terminal: Any) -> str:
    return history_as_text(History((result, result)), "qgate.toml", **terminal)


@each_text
@pytest.mark.parametrize("show", [render, as_compared, as_history])
def test_nothing_but_colour_reaches_the_terminal(text: str, show: Callable[..., str]) -> None:
    plain = show(hostile_result(text), width=120, color=False, encoding="utf-8")
    coloured = show(hostile_result(text), width=120, color=True, encoding="utf-8")

    assert all(char.isprintable() for char in plain.replace("\n", ""))
    assert SGR.sub("", coloured).split() == plain.split()
    plain.encode()
    assert show(hostile_result(text), width=120, color=False, encoding="ascii").isascii()


@each_text
@pytest.mark.parametrize("show", [explained, explained_accuracy, tuned])
def test_what_is_explained_has_no_markup_and_nothing_that_cannot_be_seen(text: str, show: Callable[[str], str]) -> None:
    shown = show(text)

    assert all(char.isprintable() for char in shown.replace("\n", ""))
    assert "".join(printable(text).split()) in "".join(shown.split())


@each_text
def test_models_side_by_side_have_metrics_whose_names_say_themselves(text: str) -> None:
    shown = render(in_pair(text), width=2000)
    tokens = MarkdownIt("commonmark", {"html": True}).enable("table").parse(markdown(in_pair(text)))

    assert all(char.isprintable() for char in shown.replace("\n", ""))
    metric = " ".join(printable(text or "map").split())
    assert f"{metric} time speedup verdict".strip() in [" ".join(line.split()) for line in shown.splitlines()]
    _, heading, *others = (" ".join(cell.split()) for cell in next(rows_of(tokens)))
    assert heading == metric or (heading.endswith("...") and metric.startswith(heading[:-3]))  # no room for all
    assert others == ["time", "speedup", "verdict"]


@each_text
@pytest.mark.parametrize(("width", "encoding"), [(60, None), (80, None), (80, "ascii"), (120, None)])
def test_the_console_table_keeps_its_columns(text: str, width: int, encoding: str | None) -> None:
    shown = render(hostile_result(text), width=width, encoding=encoding)

    lines = shown.splitlines()
    (first,) = [index for index, line in enumerate(lines) if line.startswith("limit ")]
    (last,) = [index for index, line in enumerate(lines) if " measured, " in line and line.endswith(" beyond it")]
    table = lines[first + 1 : last]
    assert all(cell_len(line) <= width for line in table)
    limits = re.findall(r" [<>]= (\S+) .*?(\S+)$", "\n".join(table), re.MULTILINE)
    assert limits == [("70%", "error"), ("0.01", "failed"), ("2.05x", "inconclusive"), ("0.2", "passed")]


@each_text
def test_what_is_shown_is_what_was_said(text: str) -> None:
    shown = render(hostile_result(text), width=400)

    assert " ".join(f"note: {printable(text)}".split()) in " ".join(shown.split())


def inline(tokens: list[Token]) -> str:
    """Give the text that a reader sees of inline tokens, having checked that there is nothing else."""
    said = {"text", "text_special", "html_inline", "strong_open", "strong_close", "code_inline"}
    assert {token.type for token in tokens} <= said
    assert {token.content for token in tokens if token.type == "code_inline"} <= {"qgate report"}
    assert {token.content for token in tokens if token.type == "html_inline"} <= {"<!-- -->"}
    return "".join(token.content for token in tokens if token.type in ("text", "text_special"))


def rows_of(tokens: list[Token]) -> Iterator[list[str]]:
    row: list[str] = []
    for token, content in pairwise(tokens):
        if token.type == "tr_open":
            row = []
        elif token.type in ("td_open", "th_open"):
            row.append(inline(content.children or []))
        elif token.type == "tr_close":
            yield row


@each_text
def test_markdown_says_the_text_and_has_no_markup_but_its_own(text: str) -> None:
    written = markdown(hostile_result(text))
    tokens = MarkdownIt("commonmark", {"html": True}).enable("table").parse(written)

    kinds = {token.type for token in tokens}
    assert not kinds & {"fence", "code_block", "blockquote_open", "ordered_list_open", "hr", "lheading"}
    blocks = {line for token in tokens if token.type == "html_block" for line in token.content.split()}
    said = {"What", "lost", "most", "Where", "the", "time", "goes", "This", "run"}
    assert {re.sub("</?(details|summary)>", "", block) for block in blocks} <= {"", *said}
    items = [inline(token.children or []) for token in tokens if token.type == "inline"]
    wanted = " ".join(printable(text).split())
    assert [" ".join(item.split()) for item in items if item.startswith("note:")] == [f"note: {wanted}".strip()]

    rows = list(rows_of(tokens))
    limits = [row for row in rows if row[-1] in ("passed", "failed", "inconclusive", "error")]
    assert [row[-1] for row in limits] == ["error", "failed", "inconclusive", "passed"]
    assert {len(row) for row in limits} == {9}
    assert " ".join(limits[1][0].split()) == " ".join(f"{printable(text or 'map')} max_drop".split())
    slices = [
        ["0.5000", "0.4000", "0.1000", "0.0500..0.1500", "40"],
        ["0.5000", "0.4000", "0.0200", "0.0500..0.1500", "40"],
    ]
    no_room = "Details have no room here" in written
    assert no_room == (text == "@" * 300)  # each becomes nine characters
    assert [row[1:] for row in rows if len(row) == 6][1:] == ([] if no_room else slices)


@each_text
def test_nobody_is_called_by_a_comment(text: str) -> None:
    assert not re.search(r"[@#]\w", markdown(hostile_result(text)))


@each_text
def test_nothing_is_linked_by_a_comment(text: str) -> None:
    # What GitHub makes links of: https://docs.github.com/en/get-started/writing-on-github, "Autolinked references and
    # URLs", and https://github.github.com/gfm/#autolinks-extension-.
    assert not re.search(r"gh-\d|\w://|www\.", markdown(in_pair(text)), re.IGNORECASE)


@each_text
def test_a_long_report_fits_a_comment(text: str) -> None:
    one = hostile_result(text)
    (model,) = one.models.values()
    many = hostile_result(text, models={f"{text}{index}": model for index in range(60)}, not_judged=(text,) * 100)

    written = markdown(many)

    assert len(written) <= MAX_CHARACTERS
    assert written.startswith("### qgate: FAILED, 180 of 240 limits not held")
    assert "more models, which have no room here." in written


@each_text
def test_an_annotation_is_one_command_and_says_the_text(text: str) -> None:
    lines = list(annotation_lines(hostile_result(text), "fail"))

    assert len(lines) == 4
    for line in lines:
        matched = re.fullmatch(r"::(error|warning) ((?:[a-z]+=[^,:]*(?:,|(?=::)))+)::(.*)", line)
        assert matched, line
        assert all(char.isprintable() for char in line)
        values = dict(item.split("=", 1) for item in matched[2].split(","))
        assert unescaped(values["file"]) == escapes_spelled(text)
        if values["title"] != "qgate%3A not judged":
            assert unescaped(matched[3]).partition(": ")[2] == (escapes_spelled(text) or "no reason given")


def escapes_spelled(text: str) -> str:
    return "".join(char if char in "\r\n" else printable(char) for char in text)


def unescaped(text: str) -> str:
    """Decode as GitHub's runner does. Source: actions/runner, ActionCommand.cs."""
    for written, char in {"%0D": "\r", "%0A": "\n", "%3A": ":", "%2C": ",", "%25": "%"}.items():
        text = text.replace(written, char)
    return text


@each_text
def test_gitlabs_json_says_the_text(text: str, tmp_path: Path) -> None:
    path = tmp_path / "quality.json"
    GitlabReporter().write(hostile_result(text), path)

    issues = json.loads(path.read_text(encoding="utf-8"))
    assert len(issues) == 5
    assert len({issue["fingerprint"] for issue in issues}) == 5
    assert {issue["location"]["path"] for issue in issues} == {text or "qgate.toml"}
    assert text in issues[0]["description"]


@pytest.mark.parametrize("text", [text for text in HOSTILE if "\0" not in text], ids=repr)
def test_results_of_it_are_read_again(text: str, tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    hostile_result(text).save(path)

    assert load_results(path).models[text].notes == (text,)


def test_the_junit_file_can_be_parsed_and_says_the_texts(pytester: pytest.Pytester) -> None:
    found = [
        [*properties(verdict, model), *run_properties(hostile_result(text)), ("said", text)]
        for text in HOSTILE
        for model in hostile_result(text).models.values()
        for verdict in model.verdicts[:1]
    ]
    pytester.makepyfile(
        f"""
        import json
        import pytest

        @pytest.mark.parametrize("values", json.loads({json.dumps(json.dumps(found))}), ids=len)
        def test_limit(values, request):
            request.node.user_properties.extend(map(tuple, values))
            assert False, values[-1][1]
        """
    )

    pytester.runpytest_inprocess("--junitxml=junit.xml", "--tb=no", "-q")

    cases = ET.parse(pytester.path / "junit.xml").getroot().findall(".//testcase")  # noqa: S314  # our own file
    assert len(cases) == len(HOSTILE)
    for case, text in zip(cases, HOSTILE, strict=True):
        said = {item.get("name"): item.get("value") for item in case.iter("property")}
        assert said["qgate.status"] == "failed"
        assert said["said"] == "".join(xml_char(char) for char in text)


def xml_char(char: str) -> str:
    """Give a character as pytest writes it: what XML has no place for is spelled."""
    number = ord(char)
    is_legal = (
        char in "\t\n\r"
        or 0x20 <= number <= 0x7E
        or 0x80 <= number <= 0xD7FF
        or 0xE000 <= number <= 0xFFFD
        or number > 0xFFFF
    )
    return char if is_legal else f"#x{number:02X}" if number <= 0xFF else f"#x{number:04X}"
