"""`qgate report --compare` and `--history`: what changed between two runs, and the runs so far."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from command_line import as_process

if TYPE_CHECKING:
    from collections.abc import Callable

    from command_line import Outcome
    from toy_project import Folder

    Qgate = Callable[..., Outcome]

RESULTS = ".qgate/results.json"


def write_run(project: Folder, name: str, **changes: Any) -> None:
    """Write the project's results as another run: `accuracy` is int8's, `status` that of the first limit."""
    document = project.results()
    (model,) = document["models"].values()
    if "accuracy" in changes:
        model["metrics"]["accuracy"].update(candidate=changes["accuracy"], drop=1 - changes["accuracy"])
    model["verdicts"][0]["status"] = changes.get("status", model["verdicts"][0]["status"])
    model["conditions"].update(changes.get("conditions", {}))
    document["created"] = changes.get("created", document["created"])
    document["environment"]["git_commit"] = changes.get("commit", "c" * 40)
    project.write(name, json.dumps(document))


def write_history(project: Folder, count: int, **last: Any) -> None:
    """Write `count` runs into the history beside that of the project's gate, the accuracy falling by a hundredth."""
    (path,) = (project.root / ".qgate/history").iterdir()
    key = path.name.split("-")[0]
    path.unlink()
    for number in range(count):
        changes = last if number == count - 1 else {}
        created = f"2026-01-01T{number // 60:02}:{number % 60:02}:00+00:00"
        name = f".qgate/history/{key}-{number:04}-x.json"
        write_run(project, name, accuracy=1 - number / 100, created=created, **changes)


def test_two_runs_side_by_side(project: Folder, qgate: Qgate) -> None:
    write_run(project, "main.json")
    write_run(project, "branch.json", status="failed", accuracy=0.5, commit="d" * 40)

    outcome = qgate("report", "--compare", "main.json", "branch.json")

    assert (outcome.code, outcome.err) == (0, "")
    lines = outcome.out.splitlines()
    assert lines[0].startswith("qgate: 1 of 3 verdicts changed; figures: ")
    assert lines[1].startswith("1 main.json: 20")
    assert lines[1].endswith(", commit cccccccccc, PASSED")
    assert lines[2].endswith(", commit dddddddddd, FAILED")
    assert "worse: accuracy max_drop: passed -> failed" in lines
    (accuracy,) = [line for line in lines if line.startswith("accuracy ")]
    assert accuracy.split()[1:4] == ["1.0000", "0.5000", "-0.5000"]


def test_a_verdict_by_another_limit_is_no_better(project: Folder, qgate: Qgate) -> None:
    write_run(project, "main.json", status="failed")
    write_run(project, "branch.json")
    project.write("branch.json", project.text("branch.json").replace('"limit_value": 0.9', '"limit_value": 0.95'))

    lines = qgate("report", "--compare", "main.json", "branch.json").out.splitlines()

    assert "limit moved: accuracy max_drop: 0.9 -> 0.95; failed -> passed" in lines
    assert not [line for line in lines if line.startswith("better")]


def test_runs_that_cannot_be_compared_say_why(project: Folder, qgate: Qgate) -> None:
    write_run(project, "main.json")
    write_run(project, "branch.json", conditions={"data_sha256": "other"})

    out = " ".join(qgate("report", "--compare", "main.json", "branch.json").out.split())

    assert "not comparable: accuracy: other evaluation data" in out


def test_a_comparison_for_a_machine(project: Folder, qgate: Qgate) -> None:
    write_run(project, "main.json")
    write_run(project, "branch.json", status="failed")

    outcome = qgate("report", "--compare", "main.json", "branch.json", "--json")
    assert qgate("report", "--compare", "main.json", "branch.json", "--json", "-o", "out/c.json").out == ""

    document = json.loads(outcome.out)
    assert document == json.loads(project.text("out/c.json"))
    assert [document[run]["standing"] for run in ("before", "after")] == ["PASSED", "FAILED"]
    toy = document["models"]["toy"]
    assert [verdict["name"] for verdict in toy["verdicts"] if verdict["is_changed"]] == ["accuracy max_drop"]
    accuracy = next(figure for figure in toy["figures"] if figure["name"] == "accuracy")
    assert (accuracy["conclusion"], accuracy["worse_by"]) == ("same", 0)


def test_a_comparison_needs_no_configuration(project: Folder, qgate: Qgate) -> None:
    write_run(project, "main.json")
    (project.root / "qgate.toml").unlink()

    assert qgate("report", "--compare", "main.json", "main.json").code == 0


@pytest.mark.parametrize("content", [None, "{", '{"schema_version": 2}'], ids=["missing", "cut", "schema"])
def test_what_is_no_result_is_not_compared(project: Folder, qgate: Qgate, content: str | None) -> None:
    write_run(project, "main.json")
    if content is not None:
        project.write("branch.json", content)

    assert qgate("report", "--compare", "main.json", "branch.json").error.startswith("branch.json: ")


def test_resamples_that_are_damaged_are_one_line(project: Folder, qgate: Qgate) -> None:
    write_run(project, "main.json")
    project.write("branch.json", project.text("main.json").replace('"resampled": "', '"resampled": "%%'))

    error = qgate("report", "--compare", "main.json", "branch.json").error

    assert error.startswith("branch.json: cannot be compared (")


def test_each_run_is_kept(project: Folder, qgate: Qgate) -> None:
    assert len(list((project.root / ".qgate/history").iterdir())) == 1

    out = qgate("report", "--history").out

    assert out.startswith("qgate: 1 run of qgate.toml\n")
    assert " PASSED\n" in out


def test_the_history_as_lines_and_a_table(project: Folder, qgate: Qgate) -> None:
    write_history(project, 5, status="failed")

    outcome = qgate("report", "--history")

    assert (outcome.code, outcome.err) == (0, "")
    lines = outcome.out.splitlines()
    assert lines[0] == "qgate: 5 runs of qgate.toml"
    (accuracy,) = [line for line in lines if line.startswith("accuracy ")]
    assert accuracy.split() == ["accuracy", "0.9600", "0.9700", "0.9600", "1.0000", "█▆▅▃▁"]
    runs = [line.split() for line in lines if line.startswith("2026-")]
    assert [run[1] for run in runs] == ["00:04", "00:03", "00:02", "00:01", "00:00"]
    assert runs[0][2:] == ["cccccccccc", "FAILED", "toy", "accuracy", "max_drop"]
    assert runs[1][2:] == ["cccccccccc", "PASSED"]


def test_runs_under_other_conditions_are_gaps(project: Folder, qgate: Qgate) -> None:
    write_history(project, 3, conditions={"data_sha256": "other"})

    out = qgate("report", "--history").out

    (accuracy,) = [line for line in out.splitlines() if line.startswith("accuracy ")]
    assert accuracy.split()[-1] == "··▄"
    assert "· runs of other evaluation data than the last have no value here: accuracy" in " ".join(out.split())


def test_a_long_history_fits_the_terminal(project: Folder, qgate: Qgate, monkeypatch: pytest.MonkeyPatch) -> None:
    write_history(project, 70)
    for width in (80, 120, 200):
        monkeypatch.setenv("COLUMNS", str(width))

        lines = qgate("report", "--history").out.splitlines()

        assert max(map(len, lines)) <= width
        assert sum(line.startswith("2026-") for line in lines) == 20
        assert lines[-1] == "and 50 earlier ones; --json has them"


def test_the_history_for_a_machine(project: Folder, qgate: Qgate) -> None:
    write_history(project, 30)

    document = json.loads(qgate("report", "--history", "--json").out)

    assert [run["created"] for run in document["runs"]] == [
        f"2026-01-01T00:{minute:02}:00+00:00" for minute in range(30)
    ]
    last = document["runs"][-1]
    assert last["models"]["toy"]["figures"]["accuracy"] == pytest.approx(0.71)
    assert last["models"]["toy"]["verdicts"]["accuracy max_drop"] == "passed"


def test_a_run_that_cannot_be_read_is_noted(project: Folder, qgate: Qgate) -> None:
    (path,) = (project.root / ".qgate/history").iterdir()
    path.with_name(path.name.replace("-20", "-19")).write_text("{", encoding="utf-8")

    assert "note: 1 more cannot be read" in qgate("report", "--history").out


def test_without_a_run_it_says_what_to_do(project: Folder, qgate: Qgate) -> None:
    for path in (project.root / ".qgate/history").iterdir():
        path.unlink()

    assert qgate("report", "--history").error == "qgate.toml: no runs yet; run `qgate check` or `pytest --qgate` first"


@pytest.mark.parametrize("choice", [("--history",), ("--compare", "a.json", "b.json")], ids=["history", "compare"])
def test_there_is_no_other_format(project: Folder, qgate: Qgate, choice: tuple[str, ...]) -> None:
    error = qgate("report", *choice, "--format", "markdown").error

    assert error == f"{choice[0]} is shown as text, or with --json"


def test_nothing_of_it_needs_torch(project: Folder) -> None:
    write_run(project, "main.json")
    program = (
        "import sys; from qgate.cli import main; "
        "assert main(['report', '--history']) == main(['report', '--compare', 'main.json', 'main.json']) == 0; "
        "assert 'torch' not in sys.modules"
    )

    subprocess.run([sys.executable, "-c", program], cwd=project.root, check=True, capture_output=True, timeout=60)


def test_a_terminal_without_box_characters_is_drawn_on_in_ascii(
    project: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    document = project.results()
    document["models"]["toy"]["notes"] = ["na\u00efve \U0001f600 \x1b[31m"]
    project.write(RESULTS, json.dumps(document))
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")

    shown = [as_process(project.root, "report", *form) for form in ((), ("--history",), ("--format", "markdown"))]

    assert [(outcome.code, outcome.err) for outcome in shown] == [(0, "")] * 3
    assert all(outcome.out.isascii() for outcome in shown)
    assert "[" in shown[0].out
    assert r"note: na\xefve \U0001f600 \x1b[31m" in shown[0].out
    assert "o measured, [-] its interval, | the limit, . beyond it" in shown[0].out


@pytest.mark.skipif(sys.platform == "win32", reason="pty")
@pytest.mark.parametrize(
    ("variables", "is_coloured"), [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)]
)
def test_colour_is_for_terminals_that_want_it(project: Folder, variables: dict[str, str], is_coloured: bool) -> None:
    import pty

    ours, theirs = pty.openpty()
    environment = {key: value for key, value in os.environ.items() if key not in ("NO_COLOR", "FORCE_COLOR")}
    with subprocess.Popen(
        [sys.executable, "-m", "qgate", "report"],
        cwd=project.root,
        stdout=theirs,
        env={**environment, "TERM": "xterm-256color", "COLUMNS": "80", **variables},
    ) as process:
        os.close(theirs)
        shown = b""
        try:
            while chunk := os.read(ours, 4096):
                shown += chunk
        except OSError:  # Linux's way to say that the other end was closed
            pass
        os.close(ours)

    assert process.returncode == 0
    assert (b"\x1b[" in shown) == is_coloured
    assert b"passed" in shown
