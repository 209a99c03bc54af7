from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from qgate.config.model import TimingConfig
from qgate.engine import timing
from qgate.engine.progress import Silent
from qgate.engine.timing import Goal, measure
from qgate.errors import QuantizationError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

INPUTS = (torch.zeros(1),)


class Form:
    """Takes scripted seconds a run, again and again; a run of negative seconds is disturbed."""

    def __init__(self, *script: float) -> None:
        self.script = itertools.cycle(script)


class ScriptedStopwatch:
    """Runs scripted forms on a clock of its own, and notes them."""

    def __init__(self) -> None:
        self.time = 0.0
        self.runs: list[Form] = []

    def now(self) -> float:
        return self.time

    def run(self, form: Form, example_inputs: tuple[torch.Tensor, ...]) -> tuple[float, bool]:
        seconds = next(form.script)
        self.time += abs(seconds)
        self.runs.append(form)
        return abs(seconds), seconds > 0


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
        return measure(forms, INPUTS, config, Goal(tuple(floors)), Silent())  # type: ignore[arg-type]

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


def test_a_round_that_was_disturbed_is_thrown_away_at_once(
    timed: Callable[..., dict[str, Any]], stopwatch: ScriptedStopwatch
) -> None:
    """After the seven runs of each form, the first run of every second round is disturbed."""
    eager = Form(*[2.0] * 7, *[-9.0, 2.0, 2.0, 2.0, 2.0] * 6)

    figures = timed({"eager": eager, "int8": Form(1.0)}, floors=[1.5])

    assert (figures["rounds"], figures["preempted_rounds"]) == (12, 6)
    assert figures["value"] == pytest.approx(2.0)
    assert figures["interval"] == pytest.approx((2.0, 2.0))
    assert stopwatch.runs[14:16] == [eager, eager]  # nothing of the first round ran after its disturbed run


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

    assert figures["rounds"] == 768
    assert figures["interval"][0] < 1.5 < figures["interval"][1]
    assert "unsettled_because" not in figures


def test_the_time_ends_the_rounds(timed: Callable[..., dict[str, Any]], stopwatch: ScriptedStopwatch) -> None:
    figures = timed({"eager": noisy(1.5), "int8": noisy(1.0)}, floors=[1.5], max_seconds=120)

    assert 120 <= stopwatch.time < 126
    assert figures["rounds"] == 21
    assert figures["interval"][0] < 1.5 < figures["interval"][1]


def test_too_few_undisturbed_rounds_have_no_interval_and_a_reason(timed: Callable[..., dict[str, Any]]) -> None:
    """Seven undisturbed runs of each form take 21 s, one round 6, and then each disturbed one 10."""
    figures = timed({"eager": Form(*[2.0] * 9, *[-9.0] * 100), "int8": Form(1.0)}, floors=[1.0], max_seconds=100)

    assert (figures["interval"], figures["control"], figures["noise_floor"]) == (None, None, None)
    assert (figures["value"], figures["rounds"], figures["preempted_rounds"]) == (2.0, 1, 8)
    assert figures["unsettled_because"] == (
        "only 1 rounds were undisturbed in max_seconds = 100, 12 are needed "
        "(8 were thrown away, because other processes had the cores)"
    )


def test_a_machine_that_is_never_quiet_settles_nothing(timed: Callable[..., dict[str, Any]]) -> None:
    figures = timed({"eager": Form(-2.0), "int8": Form(-1.0)}, floors=[1.0], max_seconds=100)

    assert figures["forms"] == {"eager": 2.0, "int8": 1.0}
    assert (figures["interval"], figures["rounds"]) == (None, 0)
    assert figures["unsettled_because"].startswith("only 0 rounds were undisturbed")


def test_every_form_runs_once_however_little_time_there_is(timed: Callable[..., dict[str, Any]]) -> None:
    figures = timed({"eager": Form(2.0), "int8": Form(1.0)}, max_seconds=1e-9)

    assert (figures["value"], figures["interval"]) == (2.0, None)
