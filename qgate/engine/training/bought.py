"""What training bought over the same recipe without it, and whether it was needed."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from qgate.engine.judge import judge

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from qgate.config.model import ThresholdConfig
    from qgate.engine.figures import Comparison, Evaluated, Figures
    from qgate.results import Status

__all__ = ["with_gains"]

_SEVERITY: tuple[Status, ...] = ("error", "failed", "inconclusive", "passed")


def with_gains(
    figures: Mapping[str, Figures], evaluated: Evaluated, tables: Iterable[ThresholdConfig]
) -> tuple[dict[str, Figures], Status | None]:
    """Add to the trained model's figures what training gained, and give how the untrained one would be judged.

    That is the worst verdict on limits of accuracy but for those about blessed results; None where there are none.
    """
    untrained = evaluated.figures("ptq")
    gains = {name: _gain(untrained[name], evaluated.compared(name, "ptq", "int8")) for name in untrained}
    status = _untrained_status(tables, untrained, evaluated.num_samples)
    return {name: {**found, "ptq": gains[name]} for name, found in figures.items()}, status


def _gain(untrained: Figures, between: Comparison) -> dict[str, Any]:
    """Give the untrained model's `value` and its drop from float32, and the trained one's paired `gain` over it.

    `between` compares the untrained model with the trained one.
    """
    regained = between.overall()
    interval = regained["drop_interval"]
    return {
        "value": untrained["candidate"],
        "drop": untrained["drop"],
        "drop_interval": untrained["drop_interval"],
        "gain": 0.0 - regained["drop"],
        "gain_interval": None if interval is None else (0.0 - interval[1], 0.0 - interval[0]),
    }


def _untrained_status(
    tables: Iterable[ThresholdConfig], untrained: Mapping[str, Figures], num_samples: int
) -> Status | None:
    limits = [
        replace(table, limits={name: value for name, value in table.limits.items() if name != "max_regression"})
        for table in tables
        if table.metric in untrained
    ]
    verdicts = judge(limits, untrained, "", num_samples)
    return min((verdict.status for verdict in verdicts), key=_SEVERITY.index, default=None)
