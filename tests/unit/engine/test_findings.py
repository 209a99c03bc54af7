"""What a run keeps for reports, and that nothing of it decides a verdict."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from toy_project import HELD, SPEED, Folder

from qgate import hookimpl
from qgate.details import SECTIONS, read_details
from qgate.engine.gate import Gate
from qgate.local_plugin import load_local_plugin
from qgate.panels import CurvePlot, Curves, Gallery, Line, Mark, Picture

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from qgate.details import Details
    from qgate.protocols import Sample
    from qgate.results import ModelResult


class Scores:
    """Shows what it was told, as a curve and as pictures of a megabyte each."""

    name = "scores"
    told: tuple[tuple[str, float, float, int], ...] = ()

    def __init__(self, class_names: object) -> None:
        self.told = ()

    def update(self, sample_id: str, float32: Any, int8: Any, target: Any) -> None:
        self.told += ((sample_id, float(float32.max()), float(int8.max()), int(target)),)

    def panels(self, read: Callable[[int], Sample]) -> Iterator[Any]:
        Scores.told = self.told
        x = tuple(range(len(self.told)))
        lines = (Line("float32", x, tuple(item[1] for item in self.told)),)
        yield Curves("Scores", "", "sample", "score", (CurvePlot("all", lines),))
        mark = Mark((0, 0, 1, 1), "any", "int8", "both")
        pictures = [Picture(read(i).id, "", bytes(1_000_000), "image/png", 1, 1, (mark,)) for i in range(4)]
        yield Gallery("Pictures", "", tuple(pictures))


class Broken(Scores):
    name = "broken"

    def update(self, sample_id: str, float32: Any, int8: Any, target: Any) -> None:
        raise RuntimeError(f"broke\nat {sample_id}")


class BrokenLater(Scores):
    name = "broken later"

    def panels(self, read: Callable[[int], Sample]) -> Iterator[Any]:
        raise ZeroDivisionError("later")


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


def run(folder: Folder, *kinds: type, timing: bool = False) -> tuple[ModelResult, Details]:
    class Plugin:
        @hookimpl
        def qgate_register_panels(self) -> tuple[type, ...]:
            return kinds

    plugins = [*load_local_plugin(folder.root), (Plugin(), "panels of the test")]
    gate = Gate.open(folder.root / "qgate.toml", plugins=plugins, timing=timing)
    result = gate.run("toy")
    return result, read_details(result, folder.root)


def test_everything_of_a_whole_run_is_kept(folder: Folder) -> None:
    folder.configure(HELD, SPEED)

    result, details = run(folder, Scores, timing=True)

    assert result.details
    assert result.details.path == ".qgate/details/toy.details"
    assert result.details.bytes == (folder.root / result.details.path).stat().st_size
    assert details.missing == {}
    curves, gallery = details.panels
    assert isinstance(curves, Curves)
    assert curves.plots[0].lines[0].y == tuple(item[1] for item in Scores.told)
    assert [item[0] for item in Scores.told] == [str(index) for index in range(12)]
    assert isinstance(gallery, Gallery)
    assert [picture.content for picture in gallery.pictures] == [bytes(1_000_000)] * 3  # a page has room for no more
    assert details.layers
    assert [ratio.layer for ratio in details.layers.ratios if "." not in ratio.layer][-1] == "head"
    assert details.layers.worst[0].counts.sum() > 0
    assert details.times
    speed = result.metrics["speedup"]
    assert float(np.median(details.times.float32)) == speed["baseline"]
    assert float(np.median(details.times.int8)) == speed["candidate"]


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (Broken, r'panels "broken" failed: RuntimeError: broke at 0 \(.*test_findings.py'),
        (BrokenLater, r'panels "broken later" failed: ZeroDivisionError: later \(.*test_findings.py'),
    ],
)
def test_a_plugin_that_fails_fails_no_limit(kind: type, said: str, folder: Folder) -> None:
    result, details = run(folder, kind, Scores)

    assert result.passed
    assert [type(panel) for panel in details.panels] == [Curves, Gallery]  # another plugin's
    assert set(details.missing) == {"panels", "times"}

    assert re.match(said, details.missing["panels"])
    assert details.missing["times"] == "timing was switched off for this run"


MARK = Mark((0, 0, 1, 1), "any", "int8", "both")
PICTURE = Picture("a", "", b"x", "image/png", 1, 1, (MARK,))


@pytest.mark.parametrize(
    ("whole", "changes", "said"),
    [
        (MARK, {"region": (0, 0, 1)}, r"region is \(0, 0, 1\); expected left, top, right and bottom"),
        (MARK, {"region": (0, 0, 1, float("nan"))}, r"region is \(0, 0, 1, nan\)"),
        (MARK, {"group": 3}, "group is 3; expected a text"),
        (PICTURE, {"height": 0}, "picture 'a' is 1 wide and 0 high"),
        (PICTURE, {"content": "text"}, "content of picture 'a' is no bytes"),
        (PICTURE, {"marks": (PICTURE,)}, "is no Mark"),
        (Gallery("", "", ()), {"pictures": (MARK,)}, "is no Picture"),
    ],
)
def test_what_a_page_cannot_show_fails_where_it_is_made(whole: Any, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        replace(whole, **changes)


def test_a_plugin_whose_mark_cannot_be_shown_costs_its_own_panels_only(folder: Folder) -> None:
    class Cornerless(Scores):
        name = "cornerless"

        def panels(self, read: Callable[[int], Sample]) -> Iterator[Any]:
            yield Gallery("", "", (replace(PICTURE, marks=(replace(MARK, region=(0, 0, 1)),)),))

    _, details = run(folder, Cornerless, Scores)

    assert [type(panel) for panel in details.panels] == [Curves, Gallery]
    assert 'panels "cornerless" failed: ValueError: a mark\'s region is (0, 0, 1)' in details.missing["panels"]


def test_a_run_that_breaks_off_keeps_what_it_had_and_says_why_not_more(folder: Folder) -> None:
    folder.write("conftest.py", folder.text("conftest.py").replace("float(prediction", "float({}[0], prediction"))

    result, details = run(folder)

    assert [verdict.status for verdict in result.verdicts] == ["error", "error"]
    assert set(details.missing) == set(SECTIONS)
    assert all('metric "accuracy" failed at sample "0"' in reason for reason in details.missing.values())


def test_without_a_plugin_for_them_it_says_so(folder: Folder) -> None:
    _, details = run(folder)

    assert details.missing["panels"] == "no plugin shows predictions of this kind"


def test_details_that_cannot_be_written_are_noted(folder: Folder) -> None:
    folder.write(".qgate/details", "a file where a folder should be")

    result, details = run(folder)

    assert result.passed
    assert result.details is None
    assert [note for note in result.notes if note.startswith("the details for reports cannot be written: ")]
    assert details.missing["layers"] == "this run kept no details; run the gate again"


def test_a_trial_keeps_nothing(folder: Folder, tmp_path: Path) -> None:
    gate = Gate.open(folder.root / "qgate.toml", plugins=load_local_plugin(folder.root), timing=False)

    result = gate.writing_to(tmp_path / "elsewhere").run("toy")

    assert result.details is None
    assert not (tmp_path / "elsewhere" / "details").exists()
