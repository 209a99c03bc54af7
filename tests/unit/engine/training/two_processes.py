"""Two processes as `torchrun` would start them, kept for all tests of a module: they start slowly."""

from __future__ import annotations

import multiprocessing
import os
import socket
from typing import TYPE_CHECKING, Any

from qgate.engine.training.processes import Processes

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Pair"]

_SECONDS = 60  # a test whose processes wait for each other is to fail


class Pair:
    """Runs a function of a module in both processes; where it raises, what comes back is the error in one line."""

    def __init__(self) -> None:
        self._pool = multiprocessing.get_context("spawn").Pool(2)

    def __call__(self, function: Callable[..., Any], *arguments: Any) -> list[Any]:
        """Give what comes back from `function(processes, *arguments)`, by rank."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        waiting = [self._pool.apply_async(_run, (rank, port, function, arguments)) for rank in range(2)]
        return [each.get(timeout=_SECONDS) for each in waiting]

    def close(self) -> None:
        """End both, whatever they do."""
        self._pool.terminate()
        self._pool.join()


def _run(rank: int, port: int, function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    os.environ.update(RANK=str(rank), WORLD_SIZE="2", LOCAL_WORLD_SIZE="2")
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    processes = Processes.from_environment()
    try:
        return function(processes, *arguments)
    except Exception as error:  # noqa: BLE001  # it is what a test looks at
        return f"{type(error).__name__}: {error}"
    finally:
        processes.close()
