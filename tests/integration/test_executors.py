"""An executor of a third party: whoever works, and in whatever order, results are those of this process alone."""

from __future__ import annotations

import re
import shutil
import sys
from typing import TYPE_CHECKING, Any

import pytest
from sharded_project import BACKWARDS, FACTORY, PLUGIN, Sharded

from qgate.config.model import ObserverConfig
from qgate.details import read_details
from qgate.engine.progress import Silent
from qgate.engine.sharded import Workers
from qgate.engine.tuning.candidates import Change
from qgate.engine.tuning.search import tune
from qgate.errors import ConfigError, PluginError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Sharded]:
    path = sys.path.copy()
    yield Sharded(tmp_path)
    sys.path[:] = path
    sys.modules.pop("sharded", None)


def messages(project: Sharded, executor: str) -> set[str]:
    return {verdict.message for verdict in project.run(executor).verdicts}


@pytest.mark.parametrize("observer", ["histogram", "moving_average", "minmax", "mse"])
def test_results_and_artifact_are_those_of_a_local_run(project: Sharded, observer: str) -> None:
    local = project.outcome(observer=observer)

    assert project.outcome(BACKWARDS, observer) == local
    assert local["metrics"]["closeness"]["candidate"] < 0  # int8 differs from float32 at all


def test_an_observer_that_must_see_values_calibrates_in_this_process_and_says_so(project: Sharded) -> None:
    local = project.outcome(observer="jealous")

    assert project.outcome(BACKWARDS, "jealous") == local
    (note,) = [note for note in project.run(BACKWARDS, "jealous").notes if "jealous" in note]
    assert note == 'calibrated in this process: observer "jealous" must see the values themselves'


def test_a_trained_model_and_the_untrained_one_are_judged_by_workers(project: Sharded) -> None:
    local = project.outcome(recipe=TRAINED)

    result = project.run(BACKWARDS, recipe=TRAINED)

    assert project.comparable(result) == local
    assert "training is no work for workers: this process trained" in result.notes
    untrained = local["metrics"]["closeness"]["ptq"]["value"]
    assert untrained != local["metrics"]["closeness"]["candidate"]
    assert untrained == project.outcome(BACKWARDS)["metrics"]["closeness"]["candidate"]


def test_workers_judge_the_file_that_ships(project: Sharded) -> None:
    local = project.outcome(recipe='backend = "onnxruntime"')

    assert project.outcome(BACKWARDS, recipe='backend = "onnxruntime"') == local
    of_artifact = project.outcome(BACKWARDS)["metrics"]["closeness"]
    assert of_artifact["resampled"] != local["metrics"]["closeness"]["resampled"]  # another runtime's kernels


def test_what_needs_all_predictions_is_left_out_and_the_details_say_why(project: Sharded) -> None:
    result = project.run(BACKWARDS)

    details = read_details(result, project.root)
    assert details.missing["panels"] == "predictions stay with the workers of the executor that made them"
    assert details.layers


def test_the_result_says_who_worked(project: Sharded) -> None:
    assert any(note.startswith('executor "backwards": 1 processes on ') for note in project.run(BACKWARDS).notes)
    assert not any("executor" in note for note in project.run().notes)


def test_what_goes_wrong_with_a_worker_reads_as_it_does_here(project: Sharded) -> None:
    project.write("broken-2-70", "")

    local = messages(project, "")

    assert messages(project, BACKWARDS) == local
    assert all("sample 70 cannot be" in message and "OSError: the disk is gone" in message for message in local)


def test_a_worker_of_another_instruction_set_is_refused(project: Sharded) -> None:
    (message,) = messages(project, BACKWARDS + 'isa = "avx1024"\n')

    assert "would not compute what the driver does: its isa is [" in message
    assert "not ['avx1024']; give all machines the same processor" in message


@pytest.mark.parametrize(
    ("stale", "sample"),
    [("evaluate stale-2-70", "70"), ("hash stale-2", "0"), ("calibrate stale-1", r"\d+")],
)
def test_a_worker_with_other_data_is_refused(project: Sharded, stale: str, sample: str) -> None:
    (message,) = messages(project, BACKWARDS + f'stale = "{stale}"\n')

    said = f'the worker on .* read another content of sample ".*{sample}" .*; give all machines the same data'
    assert re.search(said, message), message


WITH_PARTS = FACTORY.replace(
    "    values: np.ndarray\n", "    values: np.ndarray\n    parts: list\n\n\n@dataclass\nclass Part:\n    x: int\n"
)


def test_predictions_of_what_the_first_has_none_of_reach_a_metric_that_keeps_them(project: Sharded) -> None:
    some = "Scores(output.numpy()[0], [Part(1)] if output.std() > 0.18 else [])"  # of samples 9, 11, 13, ..
    project.write("sharded.py", WITH_PARTS.replace("Scores(output.numpy()[0])", some))
    local = project.outcome()

    assert project.outcome(BACKWARDS) == local


def test_a_dataclass_that_only_a_worker_makes_is_named_with_the_metric(project: Sharded) -> None:
    some = "Scores(output.numpy()[0], [Part(1)] if (HERE / 'at-work').exists() else [])"
    project.write("sharded.py", WITH_PARTS.replace("Scores(output.numpy()[0])", some))

    (message,) = messages(project, BACKWARDS + 'stale = "evaluate at-work"\n')

    assert "a worker's prediction or target holds the dataclass sharded:Part, which no target and no" in message
    assert 'give the metric "rank" `summary` and `merge`' in message


def test_a_summary_that_holds_a_dataclass_is_named(project: Sharded) -> None:
    summarized = """
    def summary(self):
        return [seen for _, seen, _ in self.seen]

    def merge(self, summary):
        pass
"""
    project.write(
        "conftest.py", PLUGIN.replace('name, unit, higher_is_better = "rank", "", False\n', RANK + summarized)
    )

    (message,) = messages(project, BACKWARDS)

    assert message.endswith(
        'metric "rank": its summary holds the dataclass sharded:Scores; give numbers, strings, arrays of numbers, and '
        "lists or dicts of these"
    )


RANK = 'name, unit, higher_is_better = "rank", "", False\n'


def test_recipes_fare_with_workers_as_they_do_here(project: Sharded, monkeypatch: pytest.MonkeyPatch) -> None:
    observers = [Change(name, {"activation": ObserverConfig(name)}) for name in ("minmax", "moving_average", "jealous")]
    monkeypatch.setattr("qgate.engine.tuning.search.stages", lambda registry, backend: iter([observers]))
    monkeypatch.setattr("qgate.engine.tuning.trials._TIMING_SECONDS", 0.5)
    asked = []

    def searched(executor: str) -> dict[str, Any]:
        shutil.rmtree(project.root / ".qgate", ignore_errors=True)  # or trials are remembered
        tuned = tune(project.gate(executor), "net", 600.0, Silent())
        assert all(attempt.trial.speedup for attempt in tuned.attempts)
        trials = {attempt.label: attempt.trial for attempt in tuned.attempts if attempt.label in OBSERVERS}
        return {label: (trial.accuracy, trial.distance, trial.bytes) for label, trial in trials.items()}

    local = searched("")
    monkeypatch.setattr(Workers, "tried", _noting(asked, Workers.tried))

    assert searched(BACKWARDS) == local
    assert local.keys() == OBSERVERS == {recipe.activation.observer for recipe, _ in asked}
    assert len({accuracy.value for accuracy, _, _ in local.values()}) > 1
    assert len({distance.value for _, distance, _ in local.values()}) > 1


TRAINED = 'approach = "qat"\ntraining = { epochs = 2, batch_size = 2, learning_rate = 0.003, ema_decay = 0.0 }'
OBSERVERS = {"minmax", "moving_average", "jealous"}


def _noting(asked: list[Any], tried: Callable[..., Any]) -> Callable[..., Any]:
    def noted(self: Workers, recipes: Any, max_seconds: float) -> Any:
        asked.extend(recipes)
        return tried(self, recipes, max_seconds)

    return noted


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ('[qgate.executor]\nname = "backward"\n', 'unknown executor "backward"; did you mean "backwards"?'),
        (BACKWARDS + 'isas = "x"\n', 'unknown key "isas"; did you mean "isa"?'),
        ('[qgate.executor]\nname = "local"\nworkers = 2\n', 'unknown key "workers"'),
        ('executor = "ray"\n', 'executor: expected a table, got the string "ray"'),
    ],
)
def test_a_mistake_in_the_table_is_named_with_its_line(project: Sharded, table: str, message: str) -> None:
    with pytest.raises((ConfigError, PluginError)) as raised:
        project.gate(table)

    assert message in str(raised.value)
    assert raised.value.line is not None
