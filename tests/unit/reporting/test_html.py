"""The page: that it is whole, safe and says what is missing."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from html_pages import HOSTILE, Reader, make_details, make_result, stored

from qgate.errors import QGateError
from qgate.plugins import load_registry
from qgate.reporting.formats import Report
from qgate.reporting.html import reporter
from qgate.reporting.html.page import page
from qgate.results import Result, result_from_document

if TYPE_CHECKING:
    from pathlib import Path

    from qgate.details import Details

HEADINGS = (
    "Limits",
    "Accuracy",
    "Precision and recall",
    "Slice by slice",
    "Images that lost most",
    "Layers",
    "Latency",
)
HARMLESS = tuple(f"name {index}" for index in range(len(HOSTILE)))
NUM_PLOTS = 3 + 3 + 1 + 1 + 3 + 1  # intervals, curves, classes, noise, activations, latency


def read(result: Result) -> Reader:
    return Reader(page(result))


@pytest.fixture
def whole(tmp_path: Path) -> Result:
    return stored(make_result(), make_details(), tmp_path)


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The page of a whole result: a dozen plots take a second."""
    return page(stored(make_result(), make_details(), tmp_path_factory.mktemp("whole")))


@pytest.fixture
def found(text: str) -> Reader:
    return Reader(text)


def test_every_section_is_there(found: Reader) -> None:
    assert all(heading in found.text for heading in HEADINGS)
    assert len(found.all("svg", class_="plot")) == NUM_PLOTS
    assert len(found.all("img")) == 3
    assert found.all("p", class_="missing") == []


def test_the_verdicts_are_those_of_the_result(found: Reader) -> None:
    assert "FAILED" in found.text
    rows = [attributes["class"] for attributes in found.all("tr") if "class" in attributes]
    assert rows == ["error", "failed", "inconclusive", "passed"]
    assert "0.0600..0.1400" in found.text


def test_a_plot_is_described_and_has_the_figures_as_text(found: Reader) -> None:
    labels = [attributes["aria-label"] for attributes in found.all("svg")]
    assert "Confidence interval of map max_drop against its limit: failed" in labels
    assert "Values of car: int8 covers -0.9 to 1, 1.00% lie beyond" in labels
    assert "car: 0.500 to 0.400, 10 targets" in found.text


def test_nothing_is_fetched(text: str, found: Reader) -> None:
    links = [value for _, attributes in found.elements for key, value in attributes.items() if key in ("src", "href")]
    assert all(link.startswith(("data:", "#")) for link in links)
    assert "http:" not in text
    assert "https:" not in text
    assert "url(//" not in text
    (policy,) = [item["content"] for item in found.all("meta") if "http-equiv" in item]
    assert policy.startswith("default-src 'none'; img-src data:;")


def test_ids_are_unique_and_every_reference_has_one(text: str, found: Reader) -> None:
    ids = [attributes["id"] for _, attributes in found.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert {*re.findall(r"url\(#([^)]+)\)", text), *re.findall(r'href="#([^"]+)"', text)} <= set(ids)


def test_hostile_names_are_text_and_nothing_else(tmp_path: Path) -> None:
    found = read(stored(make_result(HOSTILE, model=HOSTILE[0]), make_details(HOSTILE), tmp_path))
    expected = read(stored(make_result(HARMLESS), make_details(HARMLESS), tmp_path))

    assert [tag for tag, _ in found.elements] == [tag for tag, _ in expected.elements]
    assert [sorted(item) for _, item in found.elements] == [sorted(item) for _, item in expected.elements]
    for name in HOSTILE:
        assert " ".join(name.translate(dict.fromkeys((0, 1, 13), "\ufffd")).split()) in " ".join(found.text.split()), (
            name
        )
    assert found.all("p", class_="missing") == []


def test_half_a_character_from_json_is_written_as_a_question_mark(tmp_path: Path) -> None:
    result = make_result(("half \ud800", "b", "c", "d"))

    Report.parse(f"html:{tmp_path}/out.html", load_registry()).write(result)

    assert "half ?" in (tmp_path / "out.html").read_text(encoding="utf-8")


def test_what_was_stored_gives_the_page_of_what_is_at_hand(whole: Result) -> None:
    model = whole.models["detector"]
    figures = {"baseline": math.nan, "candidate": 0.5, "drop_interval": (1.0, math.inf)}
    odd = replace(model, metrics={**model.metrics, "odd": figures})
    at_hand = whole.with_model("detector", odd)

    read_again = replace(result_from_document(json.loads(at_hand.to_json()), "a file"), folder=whole.folder)

    assert page(read_again) == page(at_hand)


def no_details(result: Result, _: Path) -> Result:
    return replace(result, models={key: replace(model, details=None) for key, model in result.models.items()})


def deleted(result: Result, file: Path) -> Result:
    file.unlink()
    return result


def damaged(result: Result, file: Path) -> Result:
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    return result


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (no_details, "this run kept no details; run the gate again"),
        (deleted, "cannot be read: No such file or directory; run the gate again"),
        (damaged, "is not what this run left: it is damaged, or of another run; run the gate again"),
    ],
)
def test_without_details_each_section_says_why(spoil: object, reason: str, whole: Result, tmp_path: Path) -> None:
    found = read(spoil(whole, tmp_path / "details" / "0.details"))  # type: ignore[operator]

    for section in ("Curves and images:", "Noise and activations:", "Distributions:"):
        (said,) = re.findall(f"{section}(.*)", found.text)
        assert said.endswith(reason)
    assert len(found.all("svg", class_="plot")) == 4  # intervals and classes are of results.json alone
    assert "map max_drop" in found.text


def test_a_section_that_a_run_did_not_come_to_says_why(tmp_path: Path) -> None:
    details = make_details()
    part: Details = replace(details, panels=(), missing={"panels": "the disk was full"})

    found = read(stored(make_result(), part, tmp_path))

    assert "Curves and images: the disk was full" in found.text
    assert len(found.all("p", class_="missing")) == 1


def test_a_result_of_another_hand_still_makes_a_page(whole: Result) -> None:
    model = whole.models["detector"]
    figures = {"slices": {"class": {key: {"odd": 1} for key in "abcd"}}, "baseline": None}

    found = read(whole.with_model("detector", replace(model, metrics={"map": figures})))

    assert "Slices: a plot could not be drawn (KeyError: 'baseline')" in found.text


@pytest.mark.parametrize("models", [0, 1], ids=["no model", "no verdict"])
def test_a_run_without_verdicts_makes_a_page(models: int) -> None:
    result = make_result()
    bare = {key: replace(model, verdicts=(), metrics={}) for key, model in result.models.items()} if models else {}

    found = read(replace(result, models=bare))

    assert "nothing was judged" in found.text
    assert ("No limit was judged." if models else "No model was judged.") in found.text


def test_a_missing_package_is_said_before_anything_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reporter, "find_spec", lambda name: None if name == "matplotlib" else object())

    with pytest.raises(QGateError, match=r"needs matplotlib; install it: pip install 'pytest-qgate\[html\]'"):
        Report.parse("html:out.html", load_registry())
