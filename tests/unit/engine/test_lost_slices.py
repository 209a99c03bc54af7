"""A class that int8 has lost fails every limit on the drop, however little it moves the mean over classes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from qgate.config.model import Place, ThresholdConfig
from qgate.engine.judge import judge

if TYPE_CHECKING:
    from qgate.results import Verdict


def verdict_with(person: dict[str, Any], *, higher_is_better: bool = True) -> Verdict:
    """Judge a drop of 0.006 against 0.03, of a metric with 80 classes of which one is `person`."""
    other = {"baseline": 0.3, "candidate": 0.3, "drop": 0.0, "support": 50}
    figures = {
        "baseline": 0.34,
        "candidate": 0.334,
        "drop": 0.006,
        "drop_interval": (0.001, 0.011),
        "higher_is_better": higher_is_better,
        "slices": {"class": {"person": person, "car": other}},
    }
    (verdict,) = judge([ThresholdConfig("map", {"max_drop": 0.03}, Place(Path("q"), 1))], {"map": figures}, "", 128)
    return verdict


def test_a_class_that_is_gone_fails_within_the_limit() -> None:
    verdict = verdict_with({"baseline": 0.5, "candidate": 0.0, "drop": 0.5, "support": 60})

    assert verdict.status == "failed"
    assert verdict.measured == 0.006
    assert verdict.message.startswith("int8 has lost class person (float32 0.5000, int8 0.0000); over all, it fell by")


@pytest.mark.parametrize(
    "person",
    [
        {"baseline": 0.5, "candidate": 0.3, "support": 60},  # worse, not lost
        {"baseline": 0.5, "candidate": 0.0, "support": 5},  # too few to tell
        {"baseline": 0.02, "candidate": 0.0, "support": 60},  # float32 cannot do it either
    ],
    ids=["worse", "few", "never-had"],
)
def test_what_may_be_chance_or_is_only_worse_is_left_to_the_limit(person: dict[str, Any]) -> None:
    assert verdict_with({**person, "drop": person["baseline"] - person["candidate"]}).status == "passed"


def test_an_error_that_is_gone_is_no_loss() -> None:
    rates = {"baseline": 0.5, "candidate": 0.0, "drop": -0.5, "support": 60}

    assert verdict_with(rates, higher_is_better=False).status == "passed"
