from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from qgate.config.model import TimingConfig
from qgate.engine import timing
from qgate.engine.progress import Silent
from qgate.engine.stopwatch import Pass
from qgate.engine.timing import Goal, measure
from qgate.errors import QuantizationError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

INPUTS = (torch.zeros(1),)


class Form:
    """Takes scripted seconds a run, again and again; a run of negative seconds has no core for half of them."""

    def __init__(self, *script: float) -> None:
        self.script = itertools.cycle(script)


class ScriptedStopwatch:
    """Runs scripted forms on a clock of its own, and notes them."""

    def __init__(self) -> None:
        self.one_thread = True
        self.time = 0.0
        self.runs: list[Form] = []

    def now(self) -> float:
        return self.time

    def run(self, form: Form, example_inputs: tuple[torch.Tensor, ...]) -> Pass:
        seconds = next(form.script)
        self.time += abs(seconds)
        self.runs.append(form)
        return Pass(abs(seconds), max(0.0, -seconds / 2))


@pytest.fixture
def stopwatch(monkeypatch: pytest.MonkeyPatch) -> ScriptedStopwatch:
    scripted = ScriptedStopwatch()
    monkeypatch.setattr(timing, "Stopwatch", lambda: scripted)
    return scripted


@pytest.fixture
def timed(stopwatch: ScriptedStopwatch) -> Callable[..., dict[str, Any]]:
    def run(
        forms: dict[str, Form],
        *,
        max_seconds: float = 10_000.0,
        warmup_rounds: int = 0,
        baseline_form: Any = "fastest",
        floors: Iterable[float] = (),
    ) -> dict[str, Any]:
        config = TimingConfig(warmup_rounds, max_seconds, baseline_form)
        return measure(forms, INPUTS, config, Goal(tuple(floors)), Silent()).figures  # type: ignore[arg-type]

    return run


def noisy(seconds: float) -> Form:
    """Give a form of 2% noise, which is another one for each form."""
    noise = np.random.default_rng(int(10 * seconds)).normal(1, 0.02, 2001)
    return Form(*(seconds * noise))


def test_the_fastest_float_form_is_the_baseline(timed: Callable[..., dict[str, Any]]) -> None:
    figures = timed({"eager": Form(3.0), "channels_last": Form(2.5), "frozen": Form(2.0), "int8": Form(1.0)})

    assert figures["forms"] == {"eager": 3.0, "channels_last": 2.5, "frozen": 2.0, "int8": 1.0}
    assert (figures["baseline_form"], figures["baseline"], figures["candidate"]) == ("frozen", 2.0, 1.0)
    assert figures["value"] == pytest.approx(2.0)
    assert figures["interval"] == pytest.approx((2.0, 2.0))
    assert figures["control"] == {"value": pytest.approx(1.0), "interval": pytest.approx((1.0, 1.0))}
    assert figures["noise_floor"] == pytest.approx(0.0)
    assert "unsettled_because" not in figures


def test_the_baseline_is_measured_afresh_after_it_was_chosen(timed: Callable[..., dict[str, Any]]) -> None:
    """`channels_last` had luck in all of its seven runs: that does not count for it later."""
    lucky = Form(*[1.0] * 7, *[2.0] * 48)

    figures = timed({"eager": Form(1.5), "channels_last": lucky, "int8": Form(1.0)})

    assert (figures["baseline_form"], figures["forms"]["channels_last"]) == ("channels_last", 1.0)
    assert (figures["baseline"], figures["value"]) == (2.0, 2.0)


def test_a_named_baseline_is_compared_with_though_another_is_faster(timed: Callable[..., dict[str, Any]]) -> None:
    figures = timed({"eager": Form(3.0), "frozen": Form(2.0), "int8": Form(1.0)}, baseline_form="eager")

    assert (figures["baseline_form"], figures["value"]) == ("eager", pytest.approx(3.0))


def test_int8_is_never_its_own_baseline(timed: Callable[..., dict[str, Any]]) -> None:
    assert timed({"eager": Form(1.0), "int8": Form(2.0)})["value"] == pytest.approx(0.5)


@pytest.mark.parametrize("form", ["frozen", "int8"])
def test_a_form_that_there_is_not_is_an_error(form: str, timed: Callable[..., dict[str, Any]]) -> None:
    with pytest.raises(QuantizationError, match=f'has no form "{form}" to compare with, only eager'):
        timed({"eager": Form(1.0), "int8": Form(1.0)}, baseline_form=form)


def test_forms_take_turns_in_alternating_order(
    timed: Callable[..., dict[str, Any]], stopwatch: ScriptedStopwatch
) -> None:
    a, b, c = Form(1.0), Form(2.0), Form(0.5)

    timed({"eager": a, "frozen": b, "int8": c}, floors=[1.0])

    assert stopwatch.runs[:12] == [a, b, c, c, b, a] * 2  # all forms
    assert stopwatch.runs[21 : 21 + 16] == [a, c, c, a, c, a, a, c] * 2  # the fastest and int8


def test_warm_up_rounds_do_not_count(timed: Callable[..., dict[str, Any]]) -> None:
    figures = timed({"eager": Form(*[100.0] * 3, *[2.0] * 55), "int8": Form(1.0)}, warmup_rounds=3, floors=[1.0])

    assert (figures["forms"]["eager"], figures["value"], figures["rounds"]) == (2.0, 2.0, 12)


def test_a_round_that_was_disturbed_is_thrown_away(timed: Callable[..., dict[str, Any]]) -> None:
    """After the seven runs of each form, the first of every second round's four is disturbed."""
    eager = Form(*[2.0] * 7, *[-9.0, 2.0, 2.0, 2.0] * 12)

    figures = timed({"eager": eager, "int8": Form(1.0)}, floors=[1.5])

    assert (figures["rounds"], figures["preempted_rounds"], figures["clock"]) == (12, 12, "wall")
    assert figures["value"] == pytest.approx(2.0)
    assert figures["interval"] == pytest.approx((2.0, 2.0))


def test_a_disturbed_run_says_nothing_about_a_form(timed: Callable[..., dict[str, Any]]) -> None:
    forms = {"eager": Form(3.0), "frozen": Form(2.0, -9.0, -8.0, -9.0, 2.0), "int8": Form(1.0)}

    assert timed(forms, max_seconds=500)["forms"]["frozen"] == 2.0


@pytest.mark.parametrize("limit", [1.3, 1.7])
def test_rounds_end_as_soon_as_the_limit_is_settled(limit: float, timed: Callable[..., dict[str, Any]]) -> None:
    figures = timed({"eager": noisy(1.5), "int8": noisy(1.0)}, floors=[limit])

    assert figures["rounds"] == 12
    assert not figures["interval"][0] <= limit <= figures["interval"][1]


def test_rounds_are_added_where_the_limit_is_near(timed: Callable[..., dict[str, Any]]) -> None:
    forms = {"eager": noisy(1.5), "int8": noisy(1.0)}

    near = timed(forms, floors=[1.48])

    assert near["rounds"] > 12
    assert near["interval"][0] > 1.48


def test_a_limit_that_is_the_truth_is_not_settled_when_the_last_look_is_over(
    timed: Callable[..., dict[str, Any]],
) -> None:
    figures = timed({"eager": noisy(1.5), "int8": noisy(1.0)}, floors=[1.5])

    assert figures["rounds"] == 1536
    assert figures["interval"][0] < 1.5 < figures["interval"][1]
    assert "unsettled_because" not in figures


def test_the_time_ends_the_rounds(timed: Callable[..., dict[str, Any]], stopwatch: ScriptedStopwatch) -> None:
    figures = timed({"eager": noisy(1.5), "int8": noisy(1.0)}, floors=[1.5], max_seconds=120)

    assert 120 <= stopwatch.time < 126
    assert figures["rounds"] == 21
    assert figures["interval"][0] < 1.5 < figures["interval"][1]


def test_too_few_undisturbed_rounds_have_no_interval_and_a_reason(timed: Callable[..., dict[str, Any]]) -> None:
    """Seven undisturbed runs of each form take 14 + 7 s, one round 6, and then each disturbed one 20."""
    figures = timed({"eager": Form(*[2.0] * 9, *[-9.0] * 100), "int8": Form(1.0)}, floors=[1.0], max_seconds=100)

    assert (figures["interval"], figures["control"], figures["noise_floor"]) == (None, None, None)
    assert (figures["value"], figures["rounds"], figures["preempted_rounds"]) == (2.0, 1, 4)
    assert figures["unsettled_because"] == ("only 1 of 5 rounds were undisturbed in max_seconds = 100, 12 are needed")


def test_on_a_busy_machine_time_on_the_core_is_compared_with_an_allowance(timed: Callable[..., dict[str, Any]]) -> None:
    """In each run of float32, the thread had no core for half of the time: by the wall clock the ratio would be 3."""
    figures = timed({"eager": Form(-3.0), "int8": Form(1.0)}, floors=[1.3], max_seconds=2000)

    assert (figures["clock"], figures["rounds"], figures["preempted_rounds"]) == ("core", 48, 48)
    assert (figures["value"], figures["baseline"], figures["candidate"]) == (1.5, 1.5, 1.0)
    assert figures["interval"] == pytest.approx((1.5 / 1.1, 1.5 * 1.1))
    assert figures["unsettled_because"] == (
        "other processes had the cores: only 0 of 48 rounds were undisturbed, and time on the core, compared instead, "
        "allows for 10%"
    )


def test_what_time_on_the_core_cannot_tell_is_looked_at_until_the_time_is_up(
    timed: Callable[..., dict[str, Any]],
) -> None:
    figures = timed({"eager": Form(-3.0), "int8": Form(-2.0)}, floors=[1.4], max_seconds=1500)

    assert (figures["clock"], figures["rounds"]) == ("core", 113)  # a quarter of the time is for the choice of a form
    assert figures["interval"][0] < 1.4 < figures["interval"][1]


def test_of_several_threads_time_on_the_core_says_nothing(
    timed: Callable[..., dict[str, Any]], stopwatch: ScriptedStopwatch
) -> None:
    stopwatch.one_thread = False

    figures = timed({"eager": Form(-3.0), "int8": Form(-2.0)}, floors=[1.0], max_seconds=1000)

    assert figures["forms"] == {"eager": 3.0, "int8": 2.0}
    assert (figures["interval"], figures["rounds"], figures["clock"]) == (None, 0, "wall")
    assert figures["unsettled_because"].startswith("only 0 of ")


def test_every_form_runs_once_however_little_time_there_is(timed: Callable[..., dict[str, Any]]) -> None:
    figures = timed({"eager": Form(2.0), "int8": Form(1.0)}, max_seconds=1e-9)

    assert (figures["value"], figures["interval"]) == (2.0, None)
