from __future__ import annotations

import time

import numpy as np
import pytest
import torch
from torch import nn

from qgate.config.model import TimingConfig
from qgate.engine import timing
from qgate.engine.progress import Silent
from qgate.engine.timing import Timing, compare, measure
from qgate.errors import QuantizationError

INPUTS = (torch.zeros(1),)


class Busy(nn.Module):
    """Keeps the core for a while, or sleeps as if another process had it."""

    def __init__(self, seconds: float, *, sleeps: bool = False) -> None:
        super().__init__()
        self.seconds, self.sleeps, self.calls = seconds, sleeps, 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        if self.sleeps:
            time.sleep(self.seconds)
            return x
        end = time.thread_time() + self.seconds
        while time.thread_time() < end:
            pass
        return x


class TestCompare:
    def rounds(self) -> dict[str, np.ndarray]:
        """What slows a round slows all of it, up to a hundredfold; the true ratio is 2."""
        rng = np.random.default_rng(0)
        load = rng.pareto(1.0, 101) + 1
        noise = rng.normal(1, 0.02, (3, 101))
        return {"eager": 3.0 * load * noise[0], "frozen": 2.0 * load * noise[1], "int8": 1.0 * load * noise[2]}

    def test_the_median_of_paired_ratios_sees_through_the_load(self) -> None:
        seconds = self.rounds()

        figures = compare(Timing(seconds, 4), "frozen", 0.95, seed=0)

        assert figures["value"] == pytest.approx(np.median(seconds["frozen"] / seconds["int8"]))
        assert figures["value"] == pytest.approx(2.0, rel=0.02)
        assert figures["interval"][0] < figures["value"] < figures["interval"][1]
        assert figures["interval"] == pytest.approx((2.0, 2.0), rel=0.03)
        assert (figures["rounds"], figures["preempted_rounds"]) == (101, 4)

    def test_the_fastest_float_form_is_the_baseline(self) -> None:
        seconds = self.rounds()

        figures = compare(Timing(seconds, 0), "fastest", 0.95, seed=0)

        assert figures["baseline_form"] == "frozen"
        assert figures["forms"] == {form: pytest.approx(np.median(times)) for form, times in seconds.items()}
        assert (figures["baseline"], figures["candidate"]) == (figures["forms"]["frozen"], figures["forms"]["int8"])

    def test_int8_is_never_its_own_baseline(self) -> None:
        slower = {"eager": np.full(20, 1.0), "int8": np.full(20, 2.0)}

        assert compare(Timing(slower, 0), "fastest", 0.95, seed=0)["value"] == pytest.approx(0.5)

    @pytest.mark.parametrize("form", ["frozen", "int8"])
    def test_a_form_that_there_is_not_is_an_error(self, form: str) -> None:
        with pytest.raises(QuantizationError, match=f'has no form "{form}" to compare with, only eager'):
            compare(Timing({"eager": np.ones(3), "int8": np.ones(3)}, 0), form, 0.95, seed=0)  # type: ignore[arg-type]


class TestMeasure:
    def test_a_known_ratio_is_found_and_the_time_kept(self) -> None:
        forms = {"eager": Busy(0.003), "int8": Busy(0.001)}
        begin = time.perf_counter()

        measured = measure(forms, INPUTS, TimingConfig(warmup_rounds=2, max_seconds=1.0), Silent())

        assert time.perf_counter() - begin < 2
        assert 2.0 < compare(measured, "eager", 0.95, seed=0)["value"] < 3.5
        assert forms["eager"].calls == forms["int8"].calls

    def test_warm_up_rounds_do_not_count(self) -> None:
        forms = {"eager": Busy(1e-4), "int8": Busy(1e-4)}

        measured = measure(forms, INPUTS, TimingConfig(warmup_rounds=7, max_seconds=0.05), Silent())

        counted = len(measured.seconds["int8"])
        assert forms["int8"].calls == 7 + counted + (measured.preempted_rounds if counted >= 15 else 0)

    def test_rounds_in_which_another_process_had_the_core_are_thrown_away(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        rounds = iter([([2.0, 1.0], True), ([9.0, 1.0], False)] * 400)
        monkeypatch.setattr(timing, "_round", lambda *_, **__: next(rounds))

        measured = measure(dict.fromkeys(("eager", "int8")), INPUTS, TimingConfig(0, 5.0), Silent())  # type: ignore[arg-type]

        assert set(measured.seconds["eager"]) == {2.0}
        assert measured.preempted_rounds >= 14

    def test_sleep_counts_as_preempted(self) -> None:
        forms = {"eager": Busy(0.002, sleeps=True), "int8": Busy(0.0005)}

        measured = measure(forms, INPUTS, TimingConfig(warmup_rounds=0, max_seconds=0.1), Silent())

        assert measured.preempted_rounds == len(measured.seconds["eager"]) == forms["eager"].calls

    def test_forms_take_turns_in_alternating_order(self) -> None:
        order: list[str] = []

        class Notes(Busy):
            def forward(self, x: torch.Tensor) -> torch.Tensor:
                order.append(self.name)
                return super().forward(x)

        forms = {"eager": Notes(1e-4), "int8": Notes(1e-4)}
        for name, form in forms.items():
            form.name = name

        measure(forms, INPUTS, TimingConfig(warmup_rounds=0, max_seconds=0.02), Silent())

        assert order[:8] == ["eager", "int8", "int8", "eager"] * 2

    def test_no_time_for_one_round_is_an_error(self) -> None:
        with pytest.raises(QuantizationError, match="not one timing round fitted into max_seconds = 1e-09; raise it"):
            measure({"eager": Busy(0), "int8": Busy(0)}, INPUTS, TimingConfig(0, 1e-9), Silent())

    def test_a_model_that_works_in_place_gets_fresh_inputs(self) -> None:
        seen = []

        class Adds(Busy):
            def forward(self, x: torch.Tensor) -> torch.Tensor:
                seen.append(float(x))
                return super().forward(x.add_(1))

        measure({"eager": Adds(1e-4), "int8": Adds(1e-4)}, INPUTS, TimingConfig(1, 0.02), Silent())

        assert set(seen) == {0.0}
