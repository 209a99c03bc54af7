from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pytest
from command_line import Outcome, as_process
from toy_project import HELD, MISSED, SPEED

from qgate.config.document import OWN_MODEL

if TYPE_CHECKING:
    from collections.abc import Callable

    from toy_project import Folder

    Qgate = Callable[..., Outcome]


def test_limits_that_hold_exit_with_0_and_the_table(checked: tuple[Folder, Outcome]) -> None:
    folder, outcome = checked

    assert outcome.code == 0, outcome
    assert outcome.out.startswith("qgate: PASSED, 3 limits held\n")
    assert re.search(r"^accuracy lower_bound .* >= 0\.1 passed$", outcome.out, re.MULTILINE)
    assert {verdict["status"] for verdict in folder.results()["models"]["toy"]["verdicts"]} == {"passed"}


def test_each_step_has_one_plain_line_with_its_time(checked: tuple[Folder, Outcome]) -> None:
    lines = checked[1].err.splitlines()

    steps = [re.fullmatch(r"toy: (\w+)( \(\d+\))?: \d+\.\d s(, [\d.]+/s)?", line) for line in lines]
    assert all(steps), lines
    names = [step[1] for step in steps if step]
    assert len(names) == len(set(names))
    assert {"load", "quantize", "calibrate", "evaluate", "timing"} <= set(names)


def test_a_missed_limit_exits_with_1_and_says_by_how_much(project: Folder, qgate: Qgate) -> None:
    project.configure(MISSED)

    outcome = qgate("check")

    assert outcome.code == 1
    assert outcome.out.startswith("qgate: FAILED, 1 of 2 limits not held: toy accuracy lower_bound\n")
    assert re.search(r"^accuracy lower_bound +.* +1\.0000 .* >= 1\.5 (-0\.5000 )?failed$", outcome.out, re.M)


def test_a_bug_exits_with_3_and_keeps_the_last_results(project: Folder) -> None:
    before = project.text(".qgate/results.json")
    project.write(
        "conftest.py", project.text("conftest.py") + "\nimport qgate.engine.gate as gate\ngate.parse = None\n"
    )

    outcome = as_process(project.root, "check")

    assert outcome.code == 3
    assert outcome.out == ""
    assert "a bug in qgate or in a plugin" in outcome.err
    assert project.text(".qgate/results.json") == before


def test_json_has_standard_output_for_itself(project: Folder, qgate: Qgate) -> None:
    noisy = project.text("toy.py").replace("torch.manual_seed(0)", "torch.manual_seed(0); print('loading the model')")
    project.write("toy.py", noisy)
    project.configure(MISSED)

    outcome = qgate("check", "--json")

    assert outcome.code == 1
    document = json.loads(outcome.out)
    assert document["models"]["toy"]["verdicts"] == project.results()["models"]["toy"]["verdicts"]
    assert "loading the model" in outcome.err


def test_json_and_a_report_cannot_share_standard_output(project: Folder, qgate: Qgate) -> None:
    assert "--report markdown:FILE" in qgate("check", "--json", "--report", "markdown").error


def test_reports_are_written_beside_the_table(project: Folder, qgate: Qgate) -> None:
    outcome = qgate("check", "--no-timing", "--report", "json:out/report.json", "--report", "markdown")

    assert json.loads(project.text("out/report.json")) == project.results()
    assert outcome.out.startswith("qgate: FAILED, 1 of 3 limits not held: toy speedup lower_bound\n")
    assert "\n### qgate: FAILED, 1 of 3" in outcome.out


def test_without_timing_a_speed_limit_fails(project: Folder, qgate: Qgate) -> None:
    project.configure(SPEED)

    outcome = qgate("check", "--no-timing")

    assert outcome.code == 1
    assert "error: speedup lower_bound: not measured: timing was switched off for this run" in outcome.out


def test_a_configuration_elsewhere(project: Folder, qgate: Qgate, tmp_path_factory: pytest.TempPathFactory) -> None:
    project.configure(HELD, name="gates/other.toml")
    for name in ("toy.py", "conftest.py"):
        project.write(f"gates/{name}", project.text(name))

    outcome = qgate("check", "--config", "gates/other.toml")

    assert outcome.code == 0, outcome
    assert (project.root / "gates" / ".qgate" / "results.json").exists()


def test_one_model_of_several(project: Folder, qgate: Qgate) -> None:
    project.configure(HELD, models=("toy", "small"))

    outcome = qgate("check", "--model", "small")

    assert outcome.code == 0
    assert list(project.results()["models"]) == ["small"]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (
            ("check", "--config", "absent.toml"),
            f"absent.toml: there is no such file; write one with `qgate init`, or {OWN_MODEL}",
        ),
        (("check", "--config", "."), ".: is a folder; expected a qgate.toml"),
        (("check", "--model", "large"), 'qgate.toml: has no model "large"; it has toy'),
        (("check", "--report", "pdf:x"), 'unknown reporter "pdf"; there are gitlab, html, json, markdown'),
        (("check", "--jsn"), "unrecognized arguments: --jsn; see `qgate --help`"),
        (("check", "--report"), "argument --report: expected one argument; see `qgate check --help`"),
        ((), "the following arguments are required: COMMAND; see `qgate --help`"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_a_mistake_on_the_command_line_exits_with_4(
    project: Folder, qgate: Qgate, arguments: tuple[str, ...], expected: str
) -> None:
    assert qgate(*arguments).error == expected


@pytest.mark.parametrize(
    ("found", "replacement", "expected"),
    [
        ("schema_version = 1", "schema_version = ", r"qgate\.toml:1: is not TOML: .*"),
        ("schema_version = 1", "qgate = 3\nschema_version = 1", r"qgate\.toml:1: qgate: expected a table, .*"),
        ("warmup_rounds = 1", 'warmup_rounds = "one"', r"qgate\.toml:\d+: \[models\.toy\.timing\] warmup_rounds: .*"),
        ("max_drop", "max_dop", r'qgate\.toml:\d+: .*unknown key "max_dop"; did you mean "max_drop"\?'),
        ('"minmax"', '"minmix"', r'qgate\.toml:\d+: .*"minmix"; did you mean "minmax"\?'),
        (
            'evaluation = { factory = "toy:data"',
            'evaluation = { factory = "toy:no_data"',
            r"qgate\.toml:\d+: the evaluation data is empty",
        ),
        ('"toy:model"', '"toy:modle"', r'qgate\.toml:5: factory "toy:modle": .*'),
        ('factory = "toy:model"', '\nfactory = "tos:model"', r'qgate\.toml:6: factory "tos:model": .*'),
    ],
)
def test_a_mistake_in_the_configuration_exits_with_4_and_changes_nothing(
    project: Folder, qgate: Qgate, found: str, replacement: str, expected: str
) -> None:
    before = project.text(".qgate/results.json")
    project.write("qgate.toml", project.text("qgate.toml").replace(found, replacement))

    assert re.fullmatch(expected, qgate("check").error)
    assert project.text(".qgate/results.json") == before


MODEL_OF_THE_TOY = "return Toy(), torch.rand(1, 3, 8, 8)"
EXPECTED_INPUTS = r"qgate\.toml:3: \[models\.toy\] loader \"factory\": example_inputs must be a tuple of tensors, "


@pytest.mark.parametrize(
    ("replacement", "expected"),
    [
        (
            "raise RuntimeError('disk on fire')",
            r"\[models\.toy\] loader \"factory\" failed: RuntimeError: disk on fire \(.*toy\.py:22, in model\)",
        ),
        ("return Toy(), [torch.rand(1, 3, 8, 8)]", f"{EXPECTED_INPUTS}one for each input, got a tuple of list"),
        (
            "import qgate; return qgate.LoadedModel(Toy(), [torch.rand(1, 3, 8, 8)])",
            EXPECTED_INPUTS + r"e\.g\. \(torch\.zeros\(1, 3\),\), got list",
        ),
        ("return Toy(), ()", f"{EXPECTED_INPUTS}one for each input, got a tuple of nothing"),
    ],
)
def test_a_factory_that_gives_no_model_is_told_in_one_line(
    project: Folder, qgate: Qgate, replacement: str, expected: str
) -> None:
    project.write("toy.py", project.text("toy.py").replace(MODEL_OF_THE_TOY, replacement))

    assert re.fullmatch(expected, qgate("check").error)


@pytest.mark.parametrize("key", ["artifacts", "results"])
def test_what_cannot_be_written_is_found_before_anything_slow(project: Folder, qgate: Qgate, key: str) -> None:
    settings = f'[qgate]\n{key} = "conftest.py/place"\n'
    project.write("qgate.toml", project.text("qgate.toml").replace("[models.toy]", settings + "[models.toy]", 1))
    project.write("toy.py", project.text("toy.py") + "\nraise RuntimeError('read')\n")

    error = qgate("check").error

    place = "conftest.py/place/toy.pt: " if key == "artifacts" else "conftest.py/place: the results "
    assert error.startswith(f"{place}cannot be written: Not a directory; ")
    assert f"as `{key}` in [qgate]" in error


def test_results_that_cannot_be_saved_in_the_end_are_shown_all_the_same(project: Folder, qgate: Qgate) -> None:
    project.configure(HELD)
    project.write(
        "qgate.toml", project.text("qgate.toml").replace("[models.toy]", '[qgate]\nresults = "late"\n[models.toy]', 1)
    )
    in_the_way = "import pathlib; pathlib.Path('late').mkdir(exist_ok=True); return float("
    project.write("conftest.py", project.text("conftest.py").replace("return float(", in_the_way))

    outcome = qgate("check")

    assert outcome.code == 4
    assert outcome.out.startswith("qgate: PASSED")
    assert "qgate: error: late: the results cannot be written: " in outcome.err
    assert "Traceback" not in outcome.err


def test_no_warning_of_torch_reaches_those_who_make_warnings_errors(project: Folder) -> None:
    backends = ("fbgemm", "onednn", "x86")
    project.configure(HELD, SPEED, models=backends)
    text = project.text("qgate.toml")
    for backend in backends:
        header = f"[models.{backend}.quantization]\n"
        text = text.replace(header, f'{header}backend = "{backend}"\n')
    project.write("qgate.toml", text)

    outcome = as_process(project.root, "check", flags=("-W", "error"))

    assert outcome.code == 0, outcome
    assert "arning" not in outcome.err
