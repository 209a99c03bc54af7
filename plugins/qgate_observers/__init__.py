"""Observers and calibrators."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qgate import hookimpl

if TYPE_CHECKING:
    from qgate.protocols import Calibrator


@hookimpl
def qgate_register_calibrators() -> tuple[type[Calibrator], ...]:
    """Register `first`, `random` and `stratified`."""
    from qgate_observers.calibrators import FirstCalibrator, RandomCalibrator, StratifiedCalibrator

    return (FirstCalibrator, RandomCalibrator, StratifiedCalibrator)
