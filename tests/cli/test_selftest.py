"""`qgate selftest`: a gate with sharp limits catches what is planted, a blunt one does not and says so."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from toy_project import PLUGIN

from qgate.engine.gate import Gate
from qgate.engine.timing import Timing
from qgate.local_plugin import load_local_plugin

if TYPE_CHECKING:
    from collections.abc import Callable

    from command_line import Outcome
    from toy_project import Folder

    Qgate = Callable[..., Outcome]

# How near the int8 logits are to float32's, which any fault moves.
METRIC = PLUGIN.replace('"accuracy"', '"nearness"').replace(
    "float(prediction.argmax() == target)", "float(-(prediction - target).abs().max())"
)
SHARP = "[models.toy.thresholds.nearness]\nmax_drop = 0.003\n"
BLUNT = "[models.toy.thresholds.nearness]\nmax_drop = 1000\n"
FAST = "[models.toy.thresholds.speedup]\nlower_bound = 0.5\n"


@pytest.fixture
def nearness(project: Folder) -> Folder:
    """The toy project, judged by how near int8's output is to float32's."""
    project.write("conftest.py", METRIC)
    text = project.text("toy.py").replace(
        "labels = model()[0].eval()(images).argmax(1)", "labels = model()[0].eval()(images)"
    )
    project.write("toy.py", text.replace("list(zip(images, labels.tolist()))", "list(zip(images, labels))"))
    return project


def verdicts(outcome: Outcome) -> dict[str, bool | None]:
    return {item["fault"]: item["caught"] for item in json.loads(outcome.out)["toy"]}


def test_sharp_limits_catch_every_fault_but_the_one_without_a_limit(nearness: Folder, qgate: Qgate) -> None:
    nearness.configure(SHARP)

    outcome = qgate("selftest")

    assert outcome.code == 1
    assert outcome.out.startswith("qgate selftest: toy: NOT PROVEN, 3 of 4 planted faults were caught\n")
    assert "times as long: NOT CAUGHT\n      no limit on speedup that holds, so nothing would see it" in outcome.out
    assert "a class is never predicted: not planted\n      no metric of this gate has slices by class" in outcome.out
    assert max(map(len, outcome.out.splitlines())) <= 80


def timing_of(figures: dict[str, object]) -> Timing:
    return Timing(figures, np.zeros(0), np.zeros(0))


def test_a_slow_arm_is_caught_by_a_limit_on_speed(
    nearness: Folder, qgate: Qgate, monkeypatch: pytest.MonkeyPatch
) -> None:
    def measure(forms: dict[str, Any], *_: object) -> Timing:
        """Say that a pass takes a second in either arm, as no clock would."""
        value = 1 / getattr(forms["int8"], "times", 1)
        interval = (value, value)
        return timing_of({"baseline": 1.0, "candidate": 1 / value, "value": value, "interval": interval, "forms": {}})

    monkeypatch.setattr("qgate.engine.run.measure", measure)
    nearness.configure(SHARP, FAST)

    outcome = qgate("selftest")

    assert outcome.code == 0, outcome.out
    assert outcome.out.startswith("qgate selftest: toy: PROVEN, 4 of 4 planted faults were caught\n")
    assert "int8 takes 4 times as long: caught\n      speedup lower_bound failed: is 0.250" in outcome.out


def test_a_slow_arm_that_could_not_be_timed_is_not_caught(
    nearness: Folder, qgate: Qgate, monkeypatch: pytest.MonkeyPatch
) -> None:
    def measure(forms: dict[str, Any], *_: object) -> Timing:
        """Time the sound arm, and find the machine busy ever after."""
        value = 1 / getattr(forms["int8"], "times", 1)
        interval = (value, value) if value == 1 else None
        figures = {"baseline": 1.0, "candidate": 1 / value, "value": value, "interval": interval, "forms": {}}
        return timing_of({**figures, "unsettled_because": "only 0 of 40 rounds were undisturbed"})

    monkeypatch.setattr("qgate.engine.run.measure", measure)
    nearness.configure(SHARP, FAST)

    outcome = qgate("selftest", "--json")

    slow = next(item for item in json.loads(outcome.out)["toy"] if item["fault"] == "slow")
    assert outcome.code == 1
    assert slow["caught"] is False
    assert slow["message"].startswith("it was not shown, run it again where nothing else runs: ")


def test_blunt_limits_are_found_out(nearness: Folder, qgate: Qgate) -> None:
    nearness.configure(BLUNT)

    outcome = qgate("selftest", "--json")

    assert outcome.code == 1
    expected = {"none": False, "scale": False, "channels": False, "class": None, "slow": False, "no data": True}
    assert verdicts(outcome) == expected
    messages = {item["fault"]: item["message"] for item in json.loads(outcome.out)["toy"]}
    assert messages["scale"] == "every limit holds: nearness max_drop"
    assert messages["slow"] == "no limit on speedup that holds, so nothing would see it"


def test_a_gate_that_does_not_hold_as_it_is_proves_nothing(nearness: Folder, qgate: Qgate) -> None:
    nearness.configure("[models.toy.thresholds.nearness]\nmax_drop = -1.0\n")

    outcome = qgate("selftest")

    assert outcome.code == 1
    assert outcome.out.startswith("qgate selftest: toy: NOT PROVEN")
    assert "  the gate as it is: does not hold\n      nearness max_drop failed: " in outcome.out


def test_nothing_of_the_users_is_written(nearness: Folder, qgate: Qgate) -> None:
    nearness.configure(SHARP)
    before = {path: path.read_bytes() for path in sorted(nearness.root.rglob(".qgate/**/*")) if path.is_file()}

    qgate("selftest")

    assert before
    assert {path: path.read_bytes() for path in sorted(nearness.root.rglob(".qgate/**/*")) if path.is_file()} == before
    assert not (nearness.root / "qgate-blessed.json").exists()


def test_a_limit_that_compares_with_blessed_results_does_not_catch_what_it_cannot_see(
    nearness: Folder, qgate: Qgate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CI", raising=False)  # where nothing is blessed
    nearness.configure(BLUNT.replace("max_drop", "max_regression"))
    gate = Gate.open(nearness.root / "qgate.toml", plugins=load_local_plugin(nearness.root), update_blessed=True)
    gate.run("toy")
    gate.save_blessed(gate.result())

    outcome = qgate("selftest", "--json")

    assert verdicts(outcome) == {
        "none": False,
        "scale": False,
        "channels": False,
        "slow": False,
        "class": None,
        "no data": True,
    }


def test_a_fault_that_cannot_be_planted_is_not_caught(nearness: Folder, qgate: Qgate) -> None:
    nearness.configure(SHARP)
    text = nearness.text("qgate.toml")
    nearness.write("qgate.toml", text.replace('calibrator = "first_ones"', 'ignored_scope = ["*"]'))

    found = {item["fault"]: item for item in json.loads(qgate("selftest", "--json").out)["toy"]}

    assert found["scale"]["caught"] is found["channels"]["caught"] is None
    assert found["scale"]["message"] == "the model has no int8 weights of a module"
