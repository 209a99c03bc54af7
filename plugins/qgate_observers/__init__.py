"""Observers and calibrators."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qgate import hookimpl

if TYPE_CHECKING:
    from qgate.protocols import Calibrator
    from qgate.quantization.observers import Observer


@hookimpl
def qgate_register_calibrators() -> tuple[type[Calibrator], ...]:
    """Register `first`, `random` and `stratified`."""
    from qgate_observers.calibrators import FirstCalibrator, RandomCalibrator, StratifiedCalibrator

    return (FirstCalibrator, RandomCalibrator, StratifiedCalibrator)


@hookimpl
def qgate_register_observers() -> tuple[type[Observer], ...]:
    """Register `percentile`, `mse` and `entropy` for activations, `per_channel_mse` for weights."""
    from qgate_observers.activations import EntropyObserver, MseObserver, PercentileObserver
    from qgate_observers.weights import PerChannelMseObserver

    return (PercentileObserver, MseObserver, EntropyObserver, PerChannelMseObserver)
