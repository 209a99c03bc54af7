from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from toy_project import HELD

if TYPE_CHECKING:
    from toy_project import Project

LIMITS = f"{HELD}max_regression = 0.5\n[models.toy.thresholds.size_reduction]\nlower_bound = -9.0\n"


@pytest.fixture(autouse=True)
def _outside_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)


@pytest.fixture
def blessable(project: Project) -> Project:
    project.configure(LIMITS)
    return project


def blessed(project: Project) -> Any:
    return json.loads(project.text("qgate-blessed.json"))["models"]


def test_without_blessed_results_a_regression_is_not_judged(blessable: Project) -> None:
    result = blessable.run("--qgate")

    result.assert_outcomes(passed=3, failed=1)
    result.stdout.fnmatch_lines(["*accuracy.max_regression: *--qgate-update-blessed*"])
    assert not (blessable.root / "qgate-blessed.json").exists()


def test_blessing_shows_before_and_after_and_later_runs_compare(blessable: Project) -> None:
    first = blessable.run("--qgate-update-blessed")
    later = blessable.run("--qgate")
    again = blessable.run("--qgate-update-blessed")

    figures = blessable.results()["models"]["toy"]["metrics"]
    assert (first.ret, later.ret, again.ret) == (0, 0, 0)
    accuracy = figures["accuracy"]["candidate"]
    first.stdout.fnmatch_lines(
        [f"qgate: blessed toy: accuracy: nothing -> {accuracy:.6g}", "*qgate-blessed.json was written*"]
    )
    again.stdout.fnmatch_lines(["qgate: qgate-blessed.json is as it was"])
    assert blessed(blessable)["toy"]["accuracy"]["value"] == accuracy
    assert blessed(blessable)["toy"]["size_reduction"]["value"] == figures["size_reduction"]["value"]


def test_only_what_was_selected_is_blessed(blessable: Project) -> None:
    blessable.configure(LIMITS, models=("toy", "small"))

    blessable.run("--qgate-update-blessed", "-k", "small and accuracy")

    assert {model: list(entries) for model, entries in blessed(blessable).items()} == {"small": ["accuracy"]}


@pytest.mark.parametrize("value", ["true", "1"])
def test_it_is_refused_in_ci(blessable: Project, monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("CI", value)

    result = blessable.run("--qgate-update-blessed")

    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: blessed results are never updated where CI is set*"])
    assert not (blessable.root / "qgate-blessed.json").exists()


def test_the_controller_blesses_for_its_workers(blessable: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("xdist")
    monkeypatch.setenv("CI", "false")

    result = blessable.pytester.runpytest_subprocess("--qgate-update-blessed", "-n2")

    assert result.ret == pytest.ExitCode.OK
    result.stdout.fnmatch_lines(["qgate: blessed toy: accuracy: nothing -> *"])
    assert set(blessed(blessable)["toy"]) == {"accuracy", "size_reduction"}


def test_a_blessed_file_that_cannot_be_written_is_an_error(blessable: Project) -> None:
    settings = '[qgate]\nblessed = "toy.py/blessed.json"\n'
    text = blessable.text("qgate.toml").replace("[models.toy]", f"{settings}\n[models.toy]")
    blessable.write("qgate.toml", text)

    result = blessable.run("--qgate-update-blessed")

    assert result.ret == pytest.ExitCode.USAGE_ERROR
