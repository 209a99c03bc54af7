"""Evaluation, calibration and tuning on a Ray cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qgate import hookimpl

if TYPE_CHECKING:
    from qgate.protocols import Executor


@hookimpl
def qgate_register_executors() -> tuple[type[Executor], ...]:
    """Register `ray`, which needs the extra of that name only where it is used."""
    from qgate_ray.executor import RayExecutor

    return (RayExecutor,)
