from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from torch import nn

from qgate.engine import stopwatch
from qgate.engine.stopwatch import Pass, Stopwatch

if TYPE_CHECKING:
    from collections.abc import Iterator

INPUTS = (torch.zeros(1),)


class Sleeps(nn.Module):
    """Gives its core away, as if another process had taken it."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        time.sleep(0.01)
        return x


class WaitsForAThread(nn.Module):
    """Leaves the work to another thread and waits for it, as torch does with two threads."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        worker = threading.Thread(target=time.sleep, args=(0.01,))
        worker.start()
        worker.join()
        return x


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_a_pass_without_its_core_is_disturbed() -> None:
    torch.set_num_threads(1)

    found = Stopwatch().run(Sleeps(), INPUTS)

    assert found.seconds >= 0.01
    assert not found.is_undisturbed
    assert found.on_core < 0.005


def test_no_pass_takes_no_time_at_all() -> None:
    assert Pass(seconds=1e-5, lost=2e-5).on_core > 0


@pytest.mark.usefixtures("two_threads")
class TestSeveralThreads:
    @pytest.fixture(autouse=True)
    def threads(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        """Stand in for what Linux counts: nanoseconds on a core, waiting for one, and turns."""
        for thread in ("1", "2"):
            (tmp_path / thread).mkdir()
            (tmp_path / thread / "schedstat").write_text("5000000 1000000 3\n")
        monkeypatch.setattr(stopwatch, "_THREADS", tmp_path)
        return tmp_path

    def test_one_may_wait_for_another(self) -> None:
        assert Stopwatch().run(WaitsForAThread(), INPUTS).is_undisturbed

    def test_one_that_waits_for_a_core_disturbs_the_pass(self, threads: Path) -> None:
        class Starved(nn.Module):
            def forward(self, x: torch.Tensor) -> torch.Tensor:
                (threads / "2" / "schedstat").write_text("5000000 901000000 4\n")
                return x

        assert not Stopwatch().run(Starved(), INPUTS).is_undisturbed

    def test_where_the_kernel_does_not_count_every_wait_is_a_disturbance(self, threads: Path) -> None:
        for thread in ("1", "2"):
            (threads / thread / "schedstat").write_text("0 0 0\n")

        assert not Stopwatch().run(WaitsForAThread(), INPUTS).is_undisturbed


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="Linux counts waiting for a core, for each thread")
@pytest.mark.usefixtures("two_threads")
def test_what_this_kernel_counts_can_be_read() -> None:
    assert Stopwatch().run(Sleeps(), INPUTS).seconds >= 0.01


def test_a_model_that_works_in_place_gets_fresh_inputs() -> None:
    seen = []

    class Adds(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            seen.append(float(x))
            return x.add_(1)

    for _ in range(3):
        Stopwatch().run(Adds(), INPUTS)

    assert seen == [0.0, 0.0, 0.0]
