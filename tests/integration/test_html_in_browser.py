"""The page in a real browser: nothing fails, everything can be seen, and the controls do what they say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from browser import Browser, chromium_or_skip
from html_pages import HOSTILE, make_details, make_result, stored

from qgate.engine.gate import Gate
from qgate.reporting.html.page import page

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
NUM_IMAGES = 96  # enough for twenty that lose
NAMES = ("car", "dog", "cat", "cow")

# An element is seen where it has an area and is within the page's width, or may be scrolled to.
UNSEEN = """
return [...document.querySelectorAll("img, svg.plot")].filter((each) => {
  const box = each.getBoundingClientRect();
  const scrolled = each.closest(".wide, .scroll");
  const fits = scrolled || (box.left >= 0 && box.right <= innerWidth + 1);
  const loaded = each.tagName !== "IMG" || (each.complete && each.naturalWidth > 0);
  return !(box.width > 50 && box.height > 20 && fits && loaded);
}).map((each) => each.outerHTML.slice(0, 200));
"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium_or_skip() as found:
        yield found


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A plain page, one of hostile names, one without details."""
    made = {}
    for kind, names in (("plain", NAMES), ("hostile", HOSTILE), ("bare", NAMES)):
        folder = tmp_path_factory.mktemp(kind)
        result = make_result(names, model=names[0])
        found = result if kind == "bare" else stored(result, make_details(names), folder)
        made[kind] = folder / "page.html"
        made[kind].write_text(page(found), encoding="utf-8")
    return made


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of the bundled example, judged without its speed."""
    folder = tmp_path_factory.mktemp("digits")
    examples = ROOT / "examples"
    document = json.loads((examples / "digits" / "data" / "val.json").read_text(encoding="utf-8"))
    document["images"] = document["images"][:NUM_IMAGES]
    kept = {image["id"] for image in document["images"]}
    document["annotations"] = [each for each in document["annotations"] if each["image_id"] in kept]
    (folder / "val.json").write_text(json.dumps(document), encoding="utf-8")
    text = (ROOT / "qgate.toml").read_text(encoding="utf-8").replace("examples/digits/data/val.json", "val.json")
    text = text.replace("examples/", f"{examples.as_posix()}/")
    (folder / "qgate.toml").write_text(text.replace("num_samples = 64", "num_samples = 8"), encoding="utf-8")
    gate = Gate.open(folder / "qgate.toml", timing=False)
    gate.run("digits")
    path = folder / "page.html"
    path.write_text(page(gate.result()), encoding="utf-8")
    return path


def check_seen(browser: Browser, path: Path, **window: Any) -> None:
    browser.open(path, **window)
    assert browser.errors() == []
    assert browser.requests() == []
    assert browser.run(UNSEEN) == []
    assert browser.run("return document.documentElement.scrollWidth <= innerWidth")


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390], ids=["desktop", "phone"])
@pytest.mark.parametrize("kind", ["plain", "hostile", "bare"])
def test_everything_can_be_seen(kind: str, width: int, dark: bool, browser: Browser, pages: dict[str, Path]) -> None:
    check_seen(browser, pages[kind], width=width, dark=dark)


@pytest.mark.parametrize("width", [1280, 390], ids=["desktop", "phone"])
def test_everything_of_the_example_can_be_seen(width: int, browser: Browser, digits: Path) -> None:
    check_seen(browser, digits, width=width)

    assert len(browser.shown(".picture")) == 20
    assert len(browser.shown("svg.plot")) > 10
    assert digits.stat().st_size < 5_000_000


def test_hostile_names_run_nothing(browser: Browser, pages: dict[str, Path]) -> None:
    browser.open(pages["hostile"])

    assert browser.run("return document.scripts.length") == 1
    assert (
        browser.run("return [...document.querySelectorAll('*')].some((each) => each.hasAttribute('onerror'))") is False
    )
    assert HOSTILE[0] in browser.run("return document.querySelector('h2').textContent")


def marks(browser: Browser) -> set[str]:
    """Give the kinds of marks that can be seen."""
    return {" ".join(sorted(set(mark.get_attribute("class").split()) - {"mark"})) for mark in browser.shown(".mark")}


def test_the_toggle_chooses_the_arm(browser: Browser, pages: dict[str, Path]) -> None:
    browser.open(pages["plain"])
    of_both = {"both of-float32", "of-float32 only-float32", "of-int8 only-int8"}
    of_targets = {"both of-target", "missed of-target"}
    assert marks(browser) == of_both | of_targets

    browser.all("input[value=int8] + span")[0].click()
    assert marks(browser) == {"both of-int8", "of-int8 only-int8"} | of_targets

    browser.all("input[value=float32] + span")[0].click()
    assert marks(browser) == {"both of-float32", "of-float32 only-float32"} | of_targets

    browser.all("input.targets")[0].click()
    assert marks(browser) == {"both of-float32", "of-float32 only-float32"}
    assert browser.errors() == []


def test_the_toggle_obeys_the_keyboard(browser: Browser, pages: dict[str, Path]) -> None:
    browser.open(pages["plain"])

    browser.all("input[value=both]")[0].send_keys("\ue014")  # the right arrow

    assert browser.run("return document.activeElement.value") == "float32"
    assert "of-int8 only-int8" not in marks(browser)


def test_the_filter_leaves_pictures_and_marks_of_one_class(browser: Browser, pages: dict[str, Path]) -> None:
    browser.open(pages["plain"])
    assert len(browser.shown(".picture")) == 4

    option = next(each for each in browser.all(".groups option") if each.text.startswith("dog "))
    option.click()

    assert [each.text for each in browser.shown("figcaption strong")] == ["dog", "cow"]  # every second one has dogs
    assert {each.text.split()[0] for each in browser.shown(".mark span")} == {"dog"}
    assert browser.all(".shown")[0].text == "2 images"

    browser.all(".groups option")[0].click()
    assert len(browser.shown(".picture")) == 4
    assert browser.errors() == []


def test_the_theme_follows_the_system_until_it_is_chosen(browser: Browser, pages: dict[str, Path]) -> None:
    def brightness() -> int:
        colour = browser.run("return getComputedStyle(document.body).backgroundColor")
        return int(colour.removeprefix("rgb(").split(",")[0])

    browser.open(pages["plain"], dark=True)
    assert brightness() < 64

    button = browser.all("#theme")[0]
    button.click()
    assert (button.text, brightness() > 192) == ("Theme: light", True)
    button.click()
    assert (button.text, brightness() < 64) == ("Theme: dark", True)


def test_a_picture_can_be_enlarged(browser: Browser, pages: dict[str, Path]) -> None:
    browser.open(pages["plain"])
    before = browser.all(".picture img")[0].size["width"]

    browser.all(".enlarge")[0].send_keys("\ue007")  # enter

    assert browser.all(".picture img")[0].size["width"] > 1.5 * before
    assert browser.all(".enlarge")[0].get_attribute("aria-pressed") == "true"
