"""A second run of an unchanged gate computes nothing again; whatever a result depends on has it computed again."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from typing import TYPE_CHECKING

import pytest
from counting_project import Counting, metrics_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

ALL = {"int8 graph", "float32 predictions", "int8 predictions", "collapse", "kernels", "layers"}
OF_INT8 = ALL - {"float32 predictions"}
PREDICTIONS = {"float32 predictions", "int8 predictions"}


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Counting]:
    path = sys.path.copy()
    yield Counting(tmp_path)
    sys.path[:] = path
    for name in ("counting", "helper"):
        sys.modules.pop(name, None)


@pytest.fixture
def judged(project: Counting) -> Counting:
    """The project after a run."""
    project.run()
    return project


def test_an_unchanged_gate_computes_nothing_twice(project: Counting) -> None:
    first, computed = project.run()
    second, again = project.run()

    assert first.verdicts[0].status == "passed", first.verdicts
    assert (first.cached, set(second.cached)) == ({}, ALL)
    assert metrics_of(second) == metrics_of(first)
    assert second.verdicts == first.verdicts
    assert second.conditions == first.conditions
    assert computed["postprocess"] >= 24  # 12 samples, two arms
    assert again["postprocess"] == 2  # one prediction of each arm, compared with what is stored
    assert again["preprocess"] == 5  # for those, and to see what becomes of each split's first sample


FORK = """
class Fork(nn.Module):
    def forward(self, image):
        if bool(image.sum() > 1e9):
            return image - 1
        return image * 2


def net():"""


def test_a_module_that_is_kept_whole_is_quantized_once(project: Counting) -> None:
    project.edit("counting.py", "def net():", FORK)
    project.edit("counting.py", "nn.Conv2d(8, 4, 3))", "nn.Conv2d(8, 4, 3), Fork())")
    project.edit("qgate.toml", "activation =", 'non_traceable = ["3"]\nactivation =')
    first, _ = project.run()

    second, _ = project.run()

    assert set(second.cached) == ALL
    assert metrics_of(second) == metrics_of(first)


def test_results_say_when_what_was_cached_was_computed(judged: Counting) -> None:
    later, _ = judged.run()
    latest, _ = judged.run()

    assert latest.cached == later.cached
    assert all(moment.startswith("20") and moment.endswith("+00:00") for moment in latest.cached.values())


def threshold(project: Counting) -> None:
    project.edit("qgate.toml", "max_drop = 0.5", "max_drop = 0.4")


def another_metric(project: Counting) -> None:
    project.edit("qgate.toml", "[models.net.thresholds.distance]", "[models.net.thresholds.size_reduction]\n")
    project.edit("qgate.toml", "max_drop = 0.5", "lower_bound = 0.0")


def labels(project: Counting) -> None:
    project.edit("labels", "1", "2")


def other_paths(project: Counting) -> None:
    project.edit("qgate.toml", "seed = 0", 'results = "elsewhere.json"\nartifacts = "elsewhere"')


@pytest.mark.parametrize("change", [threshold, another_metric, labels, other_paths])
def test_what_is_only_judged_by_has_nothing_computed_again(
    judged: Counting, change: Callable[[Counting], None]
) -> None:
    change(judged)

    result, computed = judged.run()

    assert set(result.cached) == ALL
    assert computed["postprocess"] == 2


def test_changed_labels_are_judged_by(judged: Counting) -> None:
    before, _ = judged.run()
    labels(judged)

    after, _ = judged.run()

    assert after.metrics["distance"]["baseline"] != before.metrics["distance"]["baseline"]
    assert after.conditions["data_sha256"] != before.conditions["data_sha256"]


def weight_observer(project: Counting) -> None:
    project.edit("qgate.toml", "activation =", 'weight = { observer = "per_tensor_minmax" }\nactivation =')


def correction(project: Counting) -> None:
    project.edit("qgate.toml", "activation =", "bias_correction = false\nactivation =")


def recipe(project: Counting) -> None:
    project.edit("qgate.toml", '"minmax"', '"percentile", percentile = 90')


def weights(project: Counting) -> None:
    project.edit("weights", "1", "2")


def calibration(project: Counting) -> None:
    project.edit("calibration", "1", "3")


def evaluation(project: Counting) -> None:
    project.edit("evaluation", "1", "3")


def seed(project: Counting) -> None:
    project.edit("qgate.toml", "seed = 0", "seed = 1")


def threads(project: Counting) -> None:
    project.edit("qgate.toml", "seed = 0", "num_threads = 2")


def factory_module(project: Counting) -> None:
    project.edit("counting.py", "import qgate", "import qgate  # changed")


def module_imported_in_a_function(project: Counting) -> None:
    project.edit("helper.py", "flatten()", "flatten() + 1")


def local_plugin(project: Counting) -> None:
    project.edit("conftest.py", "import qgate", "import qgate  # changed")


def number_that_preprocess_knows(project: Counting) -> None:
    project.edit("brightness", "1", "0.5")


def number_that_postprocess_knows(project: Counting) -> None:
    project.edit("scale", "1", "0.5")


INGREDIENTS: list[tuple[Callable[[Counting], None], set[str]]] = [
    (recipe, OF_INT8),
    (weights, ALL),
    (calibration, OF_INT8),
    (weight_observer, OF_INT8),
    (correction, OF_INT8),
    (evaluation, {*PREDICTIONS, "collapse", "kernels", "layers"}),
    (seed, ALL),
    (threads, ALL),
    (factory_module, ALL),
    (module_imported_in_a_function, ALL),
    (local_plugin, ALL),
    (number_that_preprocess_knows, ALL),
    (number_that_postprocess_knows, PREDICTIONS),
]


@pytest.mark.parametrize(("change", "computed"), INGREDIENTS, ids=[change.__name__ for change, _ in INGREDIENTS])
def test_what_depends_on_a_change_is_computed_again(
    judged: Counting, change: Callable[[Counting], None], computed: set[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    change(judged)
    afresh = Counting(tmp_path_factory.mktemp("afresh"))
    change(afresh)

    result, _ = judged.run()

    ranges = {"calibration"} if change in (weight_observer, correction) else set()
    assert set(result.cached) == ALL - computed | ranges
    assert metrics_of(result) == metrics_of(afresh.run()[0])


def test_advice_on_a_missed_limit_is_given_again_until_a_limit_changes(project: Counting) -> None:
    project.edit("qgate.toml", '"minmax"', '"percentile", percentile = 80')
    project.edit("qgate.toml", "activation =", "bias_correction = false\nactivation =")
    project.edit("labels", "1", "-50")  # what is predicted is above, and clipping moves it further up
    project.edit("qgate.toml", "max_drop = 0.5", "max_drop = 0.0001")
    first, _ = project.run()

    second, computed = project.run()
    project.edit("qgate.toml", "max_drop = 0.0001", "max_drop = 0.00011")
    third, _ = project.run()

    assert [result.verdicts[0].status for result in (first, second, third)] == ["failed"] * 3
    assert "noisiest" in first.metrics["distance"]
    assert metrics_of(second) == metrics_of(first)
    assert (set(second.cached), set(third.cached)) == ({*ALL, "advice"}, ALL)
    assert computed["postprocess"] == 2


def test_a_fallback_is_found_once(project: Counting) -> None:
    project.edit("qgate.toml", "max_drop = 0.5", "max_drop = 0.0\n[models.net.quantization.fallback]\nmax_layers = 1")
    first, _ = project.run()

    second, computed = project.run()

    assert second.quantization == first.quantization
    assert second.notes == first.notes
    assert {*ALL, "fallback"} <= set(second.cached)
    assert computed["postprocess"] == 2


@pytest.mark.parametrize("what", ["cpu", "torch", "isa", "python"])
def test_another_machine_or_torch_computes_again(judged: Counting, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from qgate.engine import gate

    describe = gate.describe_environment
    monkeypatch.setattr(gate, "describe_environment", lambda *of: {**describe(*of), what: "another"})

    assert judged.run()[0].cached == {}


def test_another_version_of_anything_installed_computes_again(
    judged: Counting, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "library-2.0.dist-info").mkdir()
    monkeypatch.syspath_prepend(tmp_path)

    assert judged.run()[0].cached == {}


def test_another_commit_computes_nothing_again(judged: Counting, monkeypatch: pytest.MonkeyPatch) -> None:
    from qgate.engine import gate

    describe = gate.describe_environment
    monkeypatch.setattr(gate, "describe_environment", lambda *of: {**describe(*of), "git_commit": "another"})

    assert set(judged.run()[0].cached) == ALL


def flipped(content: bytes, other: bytes) -> bytes:
    return content[:-9] + bytes([content[-9] ^ 1]) + content[-8:]


def truncated(content: bytes, other: bytes) -> bytes:
    return content[: len(content) // 2]


def emptied(content: bytes, other: bytes) -> bytes:
    return b""


def taken_for_another(content: bytes, other: bytes) -> bytes:
    return other


@pytest.mark.parametrize("damage", [flipped, truncated, emptied, taken_for_another])
def test_damaged_entries_are_computed_again(judged: Counting, damage: Callable[[bytes, bytes], bytes]) -> None:
    before, _ = judged.run()
    contents = [path.read_bytes() for path in judged.entries]
    for path, content, other in zip(judged.entries, contents, [*contents[1:], contents[0]], strict=True):
        path.write_bytes(damage(content, other))

    result, _ = judged.run()
    mended, _ = judged.run()

    assert result.cached == {}
    assert metrics_of(result) == metrics_of(before)
    assert set(mended.cached) == ALL


def test_switched_off_nothing_is_stored(project: Counting) -> None:
    project.edit("qgate.toml", "seed = 0", "cache_bytes = 0")

    for _ in range(2):
        result, computed = project.run()
        assert result.cached == {}
        assert computed["postprocess"] >= 24

    assert project.entries == []


def test_a_small_bound_keeps_what_fits(project: Counting) -> None:
    project.edit("qgate.toml", "seed = 0", "cache_bytes = 3000")

    project.run()
    result, _ = project.run()

    assert result.verdicts[0].status == "passed"
    assert sum(path.stat().st_size for path in project.entries) <= 3000


def test_a_folder_that_cannot_be_written_is_told_and_harms_nothing(project: Counting) -> None:
    (project.root / "file").touch()
    project.edit("qgate.toml", "seed = 0", 'cache = "file/cache"')

    result, _ = project.run()

    assert result.verdicts[0].status == "passed"
    (note,) = [note for note in result.notes if "cache" in note]
    assert note.startswith("the cache cannot be written (Not a directory)")


def test_where_nothing_can_be_cached_that_is_told_once(project: Counting, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(value: object) -> None:
        raise RuntimeError("no noise")

    monkeypatch.setattr("qgate.engine.reuse._noise", refuse)

    result, _ = project.run()

    (note,) = [note for note in result.notes if "cached" in note]
    assert note.startswith("nothing is cached, for what all results depend on cannot be told: RuntimeError: no noise (")
    assert result.verdicts[0].status == "passed"


def test_predictions_that_cannot_be_stored_are_computed_each_time(project: Counting) -> None:
    project.edit("counting.py", 'return Prediction(helper.flat(output).numpy() * SCALE, "flat")', "return Odd(output)")
    project.edit(
        "counting.py",
        "def net():",
        "class Odd:\n    def __init__(self, values):\n        self.values = values\n\n\ndef net():",
    )

    project.run()
    result, computed = project.run()

    assert result.verdicts[0].status == "passed"
    assert set(result.cached) == ALL - PREDICTIONS
    assert computed["postprocess"] >= 24


def test_two_runs_at_a_time_do_not_harm_each_other(project: Counting) -> None:
    command = [sys.executable, "-m", "qgate", "check", "--no-timing"]
    runs = [subprocess.Popen(command, cwd=project.root, stderr=subprocess.PIPE, text=True) for _ in range(2)]

    for process in runs:
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors

    (project.root / "calls").unlink()
    subprocess.run(command, cwd=project.root, check=True, capture_output=True)
    found = json.loads((project.root / ".qgate" / "results.json").read_text(encoding="utf-8"))
    assert set(found["models"]["net"]["cached"]) == ALL
    assert Counter((project.root / "calls").read_text(encoding="utf-8").split())["postprocess"] == 2
