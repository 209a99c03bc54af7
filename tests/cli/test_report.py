from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from command_line import Outcome
    from toy_project import Folder

    Qgate = Callable[..., Outcome]

RESULTS = ".qgate/results.json"
OTHER_THAN_JUDGED = ("has changed since it was judged", "is not there any more", "cannot be read: Is a directory")


def test_the_table_is_that_of_the_run(checked: tuple[Folder, Outcome], project: Folder, qgate: Qgate) -> None:
    outcome = qgate("report")

    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out == checked[1].out


def test_no_line_is_wider_than_80_columns(project: Folder, qgate: Qgate) -> None:
    assert max(map(len, qgate("report").out.splitlines())) <= 80


def test_a_missed_limit_is_shown_and_the_command_has_worked(project: Folder, qgate: Qgate) -> None:
    project.write(RESULTS, project.text(RESULTS).replace('"status": "passed"', '"status": "failed"', 1))

    outcome = qgate("report")

    assert outcome.code == 0
    assert outcome.out.startswith("qgate: FAILED, 1 of 3 limits not held: toy accuracy max_drop\n")


def test_json_is_what_was_saved(project: Folder, qgate: Qgate) -> None:
    outcome = qgate("report", "--json")

    assert (outcome.code, outcome.err) == (0, "")
    assert json.loads(outcome.out) == project.results()


def test_a_format_to_a_file(project: Folder, qgate: Qgate) -> None:
    outcome = qgate("report", "--format", "markdown", "--output", "out/report.md")

    assert (outcome.code, outcome.out) == (0, "")
    assert project.text("out/report.md").startswith("### qgate: PASSED, 3 limits held\n")


def test_a_configuration_that_has_changed_since_is_noted(project: Folder, qgate: Qgate) -> None:
    project.write("qgate.toml", project.text("qgate.toml").replace("max_drop = 0.9", "max_drop = 0.8"))

    outcome = qgate("report")

    assert outcome.code == 0
    assert outcome.err == "qgate: qgate.toml has changed since this run; run the gate again\n"


def test_a_run_of_another_configuration_is_compared_with_that(project: Folder, qgate: Qgate) -> None:
    project.write("other.toml", project.text("qgate.toml") + "\n# another\n")
    qgate("check", "--config", "other.toml", "--no-timing")

    assert qgate("report").err == "qgate: this run was of other.toml, not of qgate.toml\n"
    assert qgate("report", "--config", "other.toml").err == ""

    project.write("other.toml", project.text("qgate.toml"))
    changed = "qgate: other.toml has changed since this run; run the gate again\n"
    assert qgate("report").err == f"qgate: this run was of other.toml, not of qgate.toml\n{changed}"

    (project.root / "other.toml").unlink()
    gone = "qgate: other.toml is not there any more\n"
    assert qgate("report").err == f"qgate: this run was of other.toml, not of qgate.toml\n{gone}"


def test_a_report_that_cannot_be_written_is_told_in_one_line(project: Folder, qgate: Qgate) -> None:
    error = qgate("report", "--format", "markdown", "--output", "conftest.py/report.md").error

    assert error == "conftest.py/report.md: the markdown report cannot be written: File exists"


@pytest.mark.parametrize("form", [(), ("--format", "markdown"), ("--json",)], ids=["table", "markdown", "json"])
def test_an_artifact_that_is_not_what_was_judged_is_noted(
    project: Folder, qgate: Qgate, form: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    artifact = project.root / ".qgate" / "artifacts" / "toy.pt"
    monkeypatch.chdir(project.root / ".qgate")  # the artifact's path is not relative to the working folder

    def noted() -> list[str]:
        outcome = qgate("report", "--config", "../qgate.toml", *form)
        assert (outcome.code, outcome.err) == (0, "")
        assert "passed" in outcome.out
        text = " ".join(outcome.out.split())
        return [said for said in OTHER_THAN_JUDGED if said in text]

    assert noted() == []
    content = bytearray(artifact.read_bytes())
    content[-1] ^= 1
    artifact.write_bytes(content)
    assert noted() == ["has changed since it was judged"]
    artifact.unlink()
    assert noted() == ["is not there any more"]
    artifact.mkdir()
    assert noted() == ["cannot be read: Is a directory"]


def test_without_results_it_says_what_to_do(project: Folder, qgate: Qgate) -> None:
    (project.root / RESULTS).unlink()

    assert qgate("report").error == f"{RESULTS}: no results yet; run `qgate check` or `pytest --qgate` first"


def test_results_of_another_schema(project: Folder, qgate: Qgate) -> None:
    project.write(RESULTS, project.text(RESULTS).replace('"schema_version": 1', '"schema_version": 2'))

    assert qgate("report").error == f"{RESULTS}: has schema_version 2, this qgate reads 1; run the gate again"


@pytest.mark.parametrize(
    ("found", "replacement"),
    [
        ('"models": {', '"models": {"small": 3, '),
        ('"status": "passed"', '"status": "splendid"'),
        ('"limit_value": ', '"limit_value": "much", "limit_velue": '),
        ('"measured": ', '"measured": [], "slice": '),
        ('"baseline": ', '"baseline": "good", "basis": '),
        ('"total": ', '"total": {}, "whole": '),
        ('"verdicts": [', '"verdicts": [[], '),
        ('"quantization": {', '"quantisation": {'),
        ('"path": ', '"path": 3, "bytes": 3, "sha256": "", "was": '),
    ],
)
@pytest.mark.parametrize("form", [(), ("--format", "markdown")], ids=["table", "markdown"])
def test_results_that_were_edited_by_hand_are_refused(
    project: Folder, qgate: Qgate, found: str, replacement: str, form: tuple[str, ...]
) -> None:
    assert found in project.text(RESULTS)
    project.write(RESULTS, project.text(RESULTS).replace(found, replacement, 1))

    error = qgate("report", *form).error

    assert error.startswith(f"{RESULTS}: is not a qgate result (")
    assert error.endswith("; run the gate again")


@pytest.mark.parametrize("content", ["", "{", "[]", "3", "\0"], ids=["empty", "cut", "list", "number", "binary"])
def test_results_that_are_no_results_are_refused(project: Folder, qgate: Qgate, content: str) -> None:
    project.write(RESULTS, content)

    error = qgate("report").error

    assert error.startswith(f"{RESULTS}: ")
    assert error.endswith("; run the gate again")


def test_an_output_needs_a_format(project: Folder, qgate: Qgate) -> None:
    assert qgate("report", "--output", "report.md").error == "--output needs --format or --json"


def test_an_output_that_cannot_be_written(project: Folder, qgate: Qgate) -> None:
    error = qgate("report", "--json", "--output", "toy.py/report.json").error

    assert error.startswith("toy.py/report.json: the json report cannot be written: ")


def test_it_needs_no_torch_and_bears_a_reader_that_leaves(project: Folder) -> None:
    program = "import sys; from qgate.cli import main; code = main(['report']); assert 'torch' not in sys.modules; "
    with subprocess.Popen(
        [sys.executable, "-c", f"{program} sys.exit(code)"],
        cwd=project.root,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""

    assert process.returncode == 141
