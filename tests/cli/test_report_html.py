"""The HTML report by every way to it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from html_pages import Reader

if TYPE_CHECKING:
    from collections.abc import Callable

    from command_line import Outcome
    from toy_project import Folder

    Qgate = Callable[..., Outcome]


def test_a_check_writes_what_report_writes(project: Folder, qgate: Qgate) -> None:
    ran = qgate("check", "--no-timing", "--report", "html:by-check.html")
    shown = qgate("report", "--format", "html", "-o", "by-report.html")
    printed = qgate("report", "--format", "html")

    assert (ran.code, shown.code, shown.out) == (1, 0, "")
    page = project.text("by-check.html")
    assert page == project.text("by-report.html")
    assert page == printed.out
    found = Reader(page)
    assert "not measured: timing was switched off for this run" in found.text
    assert len(found.all("svg", class_="plot")) > 3


def test_a_run_that_broke_off_half_way_is_shown_and_says_what_is_missing(project: Folder, qgate: Qgate) -> None:
    project.write("conftest.py", project.text("conftest.py").replace("float(prediction", "float({}[0], prediction"))
    qgate("check", "--report", "html:page.html")

    found = Reader(project.text("page.html"))

    assert "FAILED" in found.text
    for section in ("Curves and images", "Noise and activations", "Distributions"):
        assert f'{section}: metric "accuracy" failed at sample "0" (float32): KeyError' in found.text
    assert "the artifact" not in found.text
    assert "backend" in found.text


def test_a_deleted_file_of_details_is_said(project: Folder, qgate: Qgate) -> None:
    (project.root / ".qgate" / "details" / "toy.details").unlink()

    outcome = qgate("report", "--format", "html")

    assert outcome.code == 0
    assert "Distributions: the run's details, .qgate/details/toy.details, cannot be read" in Reader(outcome.out).text


def test_what_a_run_changed_since_is_on_the_page(project: Folder, qgate: Qgate) -> None:
    (project.root / ".qgate" / "artifacts" / "toy.pt").unlink()

    text = Reader(qgate("report", "--format", "html").out).text

    assert "note: the artifact that was judged, .qgate/artifacts/toy.pt, is not there any more" in text
