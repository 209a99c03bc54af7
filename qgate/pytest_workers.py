"""The gate under pytest-xdist: no speed is measured, and one worker runs a model's gate for all of them."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from qgate.files import write_atomically

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import pytest

    from qgate.results import ModelResult, Verdict

__all__ = ["explain_timing", "is_controller", "is_worker", "once_among_workers"]


def is_worker(config: pytest.Config) -> bool:
    """Say whether this process is a worker of xdist."""
    return hasattr(config, "workerinput")


def is_controller(config: pytest.Config) -> bool:
    """Say whether this process hands its tests to workers of xdist."""
    return config.pluginmanager.has_plugin("dsession")


def once_among_workers(config: pytest.Config, name: str, make: Callable[[], str]) -> str:
    """Give the text that `make` gave in the first worker to ask for it; others wait for that worker.

    xdist spreads a model's limits over its workers, whose temporary folders share a parent that is this run's alone.
    A worker that dies lets go of the lock. One on another machine has no such folder, and makes the text itself.
    """
    if sys.platform == "win32" or config.option.basetemp is None:
        return make()
    path = Path(config.option.basetemp).parent / f"qgate-{name}.json"
    with _locked(path.with_suffix(".lock")):
        if not path.exists():
            write_atomically(path, make().encode())
        return path.read_text(encoding="utf-8")


def explain_timing(result: ModelResult) -> ModelResult:
    """Say why a worker judged no speed: other workers' tests would have slowed either arm."""
    advice = "under xdist no speed is measured, since other tests disturb it; run this limit without -n"
    verdicts = (
        replace(verdict, message=f"{verdict.message}; {advice}") if _is_untimed(verdict) else verdict
        for verdict in result.verdicts
    )
    return replace(result, verdicts=tuple(verdicts))


def _is_untimed(verdict: Verdict) -> bool:
    return verdict.metric == "speedup" and verdict.measured is None


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    import fcntl  # not on Windows

    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
