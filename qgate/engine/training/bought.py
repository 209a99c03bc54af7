"""What training bought over the same recipe without it, and whether it was needed."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from qgate.engine.judge import judge

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from qgate.config.model import ThresholdConfig
    from qgate.engine.figures import Comparison, Figures
    from qgate.results import Status

__all__ = ["gained", "untrained_status"]

_SEVERITY: tuple[Status, ...] = ("error", "failed", "inconclusive", "passed")


def gained(untrained: Figures, between: Comparison) -> dict[str, Any]:
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


def untrained_status(
    tables: Iterable[ThresholdConfig], untrained: Mapping[str, Figures], num_samples: int
) -> Status | None:
    """Give the worst verdict of the untrained model on the limits of accuracy that are not about blessed results."""
    limits = [
        replace(table, limits={name: value for name, value in table.limits.items() if name != "max_regression"})
        for table in tables
        if table.metric in untrained
    ]
    verdicts = judge(limits, untrained, "", num_samples)
    return min((verdict.status for verdict in verdicts), key=_SEVERITY.index, default=None)
