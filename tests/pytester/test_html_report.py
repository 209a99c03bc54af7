"""The HTML report of a run of pytest."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from command_line import in_process
from toy_project import HELD, SPEED

if TYPE_CHECKING:
    from toy_project import Project


@pytest.mark.parametrize("arguments", [(), ("-k", "lower_bound")], ids=["whole", "partial"])
def test_it_is_the_file_that_qgate_report_writes(
    arguments: tuple[str, ...], project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    project.configure(HELD, SPEED)

    result = project.run("--qgate", "--qgate-report", "html:by-pytest.html", *arguments)
    outcome = in_process(capsys)("report", "--format", "html", "-o", "by-report.html")

    assert result.ret == pytest.ExitCode.OK
    assert outcome.code == 0, outcome.err
    page = project.text("by-pytest.html")
    assert page == project.text("by-report.html")
    assert ("Not judged" in page) == bool(arguments)
