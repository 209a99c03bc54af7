"""The processes that train one model together, as `torchrun` starts them; one alone, otherwise."""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from qgate.errors import ProcessError, QGateError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import torch

__all__ = ["ALONE", "Processes"]

# The others wait for an order while rank 0 hashes, calibrates, evaluates and times, which may take many hours: to wait
# is no fault, and who is gone shows at once, by a closed connection. In milliseconds it must fit into 31 bits.
_TIMEOUT = timedelta(days=7)


class _GoneError(ProcessError):
    """Nothing more can be exchanged."""


class _ElsewhereError(Exception):
    """Another process has failed, and all know it."""

    def __init__(self, error: QGateError) -> None:
        super().__init__(str(error))
        self.error = error


@dataclass(frozen=True)
class Processes:
    """This process's place among those that train together, of which `local_size` are on its machine.

    Only rank 0 decides, judges and writes. Whatever is exchanged raises `ProcessError` where another process is gone.
    """

    rank: int = 0
    size: int = 1
    local_size: int = 1

    @classmethod
    def from_environment(cls) -> Processes:
        """Read what `torchrun` has set, and meet the others."""
        processes = cls(_number("RANK", 0), _number("WORLD_SIZE", 1), _number("LOCAL_WORLD_SIZE", 1))
        if processes.size > 1:
            import torch.distributed as dist

            # Defaults of its functions hold the group that is there when it is first imported, as torch.optim does:
            # that group's threads would outlive it, and now and then abort the interpreter at its end.
            import torch.distributed.nn  # noqa: F401

            has_nccl = dist.is_nccl_available()
            dist.init_process_group("cpu:gloo,cuda:nccl" if has_nccl else "gloo", timeout=_TIMEOUT)
        return processes

    def close(self) -> None:
        """Part from the others."""
        if self.size > 1:
            _part()

    def shared(self, content: bytes = b"", source: int = 0) -> bytes:
        """Give the content that the process of rank `source` has: data, never a pickle."""
        if self.size == 1:
            return content
        import numpy as np
        import torch
        import torch.distributed as dist

        length = torch.tensor([len(content)])
        with _exchange():
            dist.broadcast(length, source)
        values = torch.zeros(int(length), dtype=torch.uint8)
        if self.rank == source and content:
            values = torch.from_numpy(np.frombuffer(bytearray(content), np.uint8))
        if len(values):
            with _exchange():
                dist.broadcast(values, source)
        return values.numpy().tobytes()

    def order(self, **order: Any) -> None:
        """Tell the others what to do; without arguments, to stop."""
        self.shared(json.dumps(order).encode())

    def dismiss(self) -> None:
        """Tell the others that there is nothing more to do; whoever is gone need not be told."""
        if self.size > 1 and self.rank == 0:
            with contextlib.suppress(_GoneError):
                self.order()

    def next_order(self) -> dict[str, Any]:
        """Wait for what rank 0 orders; empty where there is nothing more to do, or nobody who orders."""
        try:
            order: dict[str, Any] = json.loads(self.shared())
        except _GoneError:
            return {}
        return order

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """Do what all processes do at the same time: where one of them fails, all raise.

        One that fails alone tells the others where they next call `added`, for each of them comes to one, sooner or
        later. So whatever else is exchanged inside must follow a call of `added`, with nothing between that may fail.
        """
        try:
            yield
            self.added()
        except _ElsewhereError as told:
            raise told.error from None
        except _GoneError:
            raise
        except Exception as error:
            if self.size > 1:
                with contextlib.suppress(_GoneError):
                    self._add(0.0, error)
            raise

    def added(self, value: float = 0.0) -> float:
        """Add a number up over all processes, if none has failed: see `together`."""
        return self._add(value) if self.size > 1 else value

    def joined(self, student: torch.nn.Module) -> torch.nn.Module:
        """Let a module average its gradients over all processes, in the backward pass: see `backward`."""
        if self.size == 1:
            return student
        from torch.nn.parallel import DistributedDataParallel

        return DistributedDataParallel(student, forward_sync_buffers=False)

    def backward(self, loss: torch.Tensor, parameters: Sequence[torch.Tensor]) -> None:
        """Give the gradients of a loss. Who fails in it, alone, parts from the others, who would wait for its own."""
        # A loss may ignore an output, but DistributedDataParallel waits for a gradient of each parameter.
        tied = loss + 0.0 * sum(value.sum() for value in parameters)
        with _exchange() if self.size > 1 else contextlib.nullcontext():
            tied.backward()

    def share(self, batch: list[int]) -> list[int]:
        """Give this process's samples of a batch."""
        return batch[self.rank :: self.size]

    def _add(self, value: float, failure: Exception | None = None) -> float:
        """Add a number up, and tell of failures. Raises `_ElsewhereError` where there are only others'."""
        import torch
        import torch.distributed as dist

        total = torch.zeros(1 + self.size, dtype=torch.float64)
        total[0], total[1 + self.rank] = value, failure is not None
        with _exchange():
            dist.all_reduce(total)
        failed = total[1:].nonzero()
        if len(failed):
            first = int(failed[0])
            said = self.shared(json.dumps(_said(failure, first)).encode() if failure else b"", first)
            if failure is None:
                from qgate.engine.wire import error_of

                raise _ElsewhereError(error_of(*json.loads(said)))
        return float(total[0])


def _number(variable: str, default: int) -> int:
    return int(os.environ.get(variable, default))


def _said(failure: Exception, rank: int) -> list[Any]:
    """Say what has failed in the process of a rank, JSON-able."""
    from qgate.engine.evaluate import brief
    from qgate.engine.wire import said_of

    error = failure if isinstance(failure, QGateError) else ProcessError(brief(failure))
    name, message, path, line = said_of(error)
    return [name, f"process {rank}: {message}", path, line]


@contextlib.contextmanager
def _exchange() -> Iterator[None]:
    """Turn what torch raises where a process is gone into one line; nobody else may wait for this one then."""
    try:
        yield
    except Exception as error:
        _part()
        raise _GoneError(f"a process that trains along has failed, or the way to it: {_first_line(error)}") from error


def _part() -> None:
    import torch.distributed as dist

    if dist.is_initialized():
        dist.destroy_process_group()


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]


ALONE = Processes()
