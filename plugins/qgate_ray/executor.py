"""Tasks of a gate as tasks of Ray."""

from __future__ import annotations

import logging
import os
import warnings
from collections import deque
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import islice
from typing import TYPE_CHECKING, Any, ClassVar

from qgate.errors import ExecutorError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_RETRIES = 3
_AHEAD = 2  # tasks for each that can run at a time: a worker need not wait for the driver
_LOCAL = "local"


@dataclass(frozen=True)
class RayOptions:
    """`address` as `ray.init` takes it: "auto" for the cluster of this machine, "local" for a new one of its own."""

    address: str = "auto"


class RayExecutor:
    """Runs tasks on a Ray cluster: each takes as many CPUs as `[qgate] num_threads` says.

    What Ray pickles between its own processes is the name of a function, and bytes.
    """

    name: ClassVar[str] = "ray"
    Options: ClassVar[type] = RayOptions

    def __init__(self, options: RayOptions) -> None:
        if find_spec("ray") is None:
            raise ExecutorError('executor "ray" needs Ray; install pytest-qgate[ray], here and on every node')
        self._address = options.address

    def map(self, job: bytes, tasks: Iterable[bytes], num_threads: int) -> Iterator[bytes]:
        """Give each task's result, in the order of the tasks. Raises `ExecutorError`."""
        ray = self._connected()
        _check_size(ray, num_threads)
        remote = ray.remote(num_cpus=num_threads, max_retries=_RETRIES)(_perform)
        width = _AHEAD * max(1, int(ray.cluster_resources().get("CPU", 1)) // num_threads)
        shared, waiting, remaining = ray.put(job), deque[Any](), iter(tasks)
        try:
            while True:
                waiting.extend(remote.remote(shared, task) for task in islice(remaining, width - len(waiting)))
                if not waiting:
                    return
                yield _result(waiting.popleft())
        finally:
            for reference in waiting:  # the driver has failed, or was interrupted
                ray.cancel(reference)

    def _connected(self) -> Any:
        """Give Ray, connected to the cluster, once in a process. Raises `ExecutorError`."""
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # a gate reports to nobody
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Ray's own, of what it will change one day
            import ray

            if not ray.is_initialized():
                self._connect(ray)
        return ray

    def _connect(self, ray: Any) -> None:
        own: dict[str, Any] = {"include_dashboard": False} if self._address == "local" else {}
        try:
            ray.init(self._address, log_to_driver=False, logging_level=logging.WARNING, **own)
        except Exception as error:  # of many kinds: an address is wrong, nobody answers, versions differ
            raise ExecutorError(
                f'executor "ray" cannot reach a cluster at "{self._address}" ({_brief(error)}); start one with '
                '`ray start --head`, or say address = "local" in [qgate.executor]'
            ) from error


def _check_size(ray: Any, num_threads: int) -> None:
    """Raise `ExecutorError` where no node can run a task: Ray would wait for one without a word."""
    greatest = max((int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"]), default=0)
    if num_threads > greatest:
        raise ExecutorError(
            f"a task takes {num_threads} CPUs, as [qgate] num_threads says, and no node of the Ray cluster has more "
            f"than {greatest}; lower num_threads, or start nodes with more"
        )


def _perform(job: bytes, task: bytes) -> bytes:
    from qgate.engine.worker import perform

    return perform(job, task)


def _result(reference: Any) -> bytes:
    import ray

    try:
        result: bytes = ray.get(reference)
    except ray.exceptions.RayError as error:
        raise ExecutorError(
            f"a shard's worker died, and so did those that were given it again, {_RETRIES} times ({_brief(error)}); "
            "see Ray's logs of the node"
        ) from error
    return result


def _brief(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
