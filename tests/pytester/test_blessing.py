from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from toy_project import HELD, SPEED

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
    first.stdout.no_fnmatch_line("*against blessed*")
    later.stdout.fnmatch_lines(["against blessed: *accuracy same*"])
    again.stdout.fnmatch_lines(["qgate: qgate-blessed.json was left as it was"])
    assert blessed(blessable)["toy"]["accuracy"]["value"] == accuracy
    assert blessed(blessable)["toy"]["size_reduction"]["value"] == figures["size_reduction"]["value"]


def test_only_what_was_selected_is_blessed(blessable: Project) -> None:
    blessable.configure(LIMITS, models=("toy", "small"))

    blessable.run("--qgate-update-blessed", "-k", "small and accuracy")

    assert {model: list(entries) for model, entries in blessed(blessable).items()} == {"small": ["accuracy"]}


TOO_FAST = SPEED.replace("0.001", "1000.0")
NO_TIME = ("max_seconds = 30", "max_seconds = 0.0001")  # too little for an interval


def limit_more(project: Project, *thresholds: str, replaced: tuple[str, str] = ("", "")) -> None:
    project.configure(LIMITS, *thresholds)
    project.write("qgate.toml", project.text("qgate.toml").replace(*replaced))


@pytest.mark.parametrize(
    ("thresholds", "replaced", "missed"),
    [
        ((), ("lower_bound = 0.1", "lower_bound = 1.5"), "accuracy lower_bound"),
        ((), ("lower_bound = -9.0", "lower_bound = 0.99"), "size_reduction lower_bound"),
        ((TOO_FAST,), ("", ""), "speedup lower_bound"),
        ((SPEED,), NO_TIME, "speedup lower_bound"),
        (("[models.toy.thresholds.speedup]\nmax_regression = 0.1\n",), NO_TIME, "speedup max_regression"),
    ],
    ids=["accuracy failed", "size failed", "speed failed", "speed inconclusive", "speed without an interval"],
)
def test_a_model_that_does_not_hold_is_not_blessed(
    blessable: Project, thresholds: tuple[str, ...], replaced: tuple[str, str], missed: str
) -> None:
    blessable.run("--qgate-update-blessed", "-k", "accuracy")
    before = blessable.text("qgate-blessed.json")
    limit_more(blessable, *thresholds, replaced=replaced)

    result = blessable.run("--qgate-update-blessed")

    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(
        [f"qgate: not blessed toy: not held: {missed}; *", "qgate: qgate-blessed.json was left as it was"]
    )
    assert blessable.text("qgate-blessed.json") == before


def test_where_nothing_was_blessed_there_is_no_file_to_leave(blessable: Project) -> None:
    limit_more(blessable, replaced=("lower_bound = 0.1", "lower_bound = 1.5"))

    result = blessable.run("--qgate-update-blessed")

    result.stdout.fnmatch_lines(["qgate: not blessed toy: *", "qgate: qgate-blessed.json was not written"])
    assert not (blessable.root / "qgate-blessed.json").exists()


def test_a_limit_that_is_left_out_does_not_keep_the_others_from_being_blessed(blessable: Project) -> None:
    limit_more(blessable, TOO_FAST)

    result = blessable.run("--qgate-update-blessed", "-k", "not speedup")

    assert result.ret == pytest.ExitCode.OK
    assert set(blessed(blessable)["toy"]) == {"accuracy", "size_reduction"}
    assert "timing" not in blessable.results()["models"]["toy"]["seconds"]  # nobody asked


def test_one_model_that_does_not_hold_leaves_the_others_to_be_blessed(blessable: Project) -> None:
    blessable.configure(LIMITS, models=("toy", "small"))
    text, _, small = blessable.text("qgate.toml").partition("[models.small]")
    blessable.write("qgate.toml", f"{text}[models.small]{small.replace('lower_bound = 0.1', 'lower_bound = 1.5')}")

    result = blessable.run("--qgate-update-blessed")

    result.stdout.fnmatch_lines(
        ["qgate: blessed toy: accuracy: *", "qgate: not blessed small: *accuracy lower_bound;*"]
    )
    assert set(blessed(blessable)) == {"toy"}


def test_what_is_inconclusive_is_blessed_where_the_user_accepts_that(blessable: Project) -> None:
    limit_more(blessable, SPEED, replaced=NO_TIME)
    accepting = '[qgate]\non_inconclusive = "warn"\n[models.toy]'
    blessable.write("qgate.toml", blessable.text("qgate.toml").replace("[models.toy]", accepting, 1))

    result = blessable.run("--qgate-update-blessed")

    assert result.ret == pytest.ExitCode.OK
    assert set(blessed(blessable)["toy"]) == {"accuracy", "size_reduction", "speedup"}


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


def test_a_blessed_file_that_cannot_be_written_is_an_error_before_anything_runs(blessable: Project) -> None:
    settings = '[qgate]\nblessed = "toy.py/blessed.json"\n'
    text = blessable.text("qgate.toml").replace("[models.toy]", f"{settings}\n[models.toy]")
    blessable.write("qgate.toml", text)

    result = blessable.run("--qgate-update-blessed")

    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(
        ["ERROR: toy.py/blessed.json: the blessed results cannot be written: Not a directory; *"]
    )
    assert not (blessable.root / ".qgate").exists()
