"""The processes that train one model together, as `torchrun` starts them; one alone, otherwise."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

__all__ = ["ALONE", "Processes"]


@dataclass(frozen=True)
class Processes:
    """This process's place among those that train together. Only rank 0 decides, judges and writes."""

    rank: int = 0
    size: int = 1

    @classmethod
    def from_environment(cls) -> Processes:
        """Read what `torchrun` has set, and meet the others."""
        processes = cls(int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1")))
        if processes.size > 1:
            import torch.distributed as dist

            has_nccl = dist.is_nccl_available()
            dist.init_process_group("cpu:gloo,cuda:nccl" if has_nccl else "gloo")
        return processes

    def close(self) -> None:
        """Part from the others."""
        if self.size > 1:
            import torch.distributed as dist

            dist.destroy_process_group()

    def shared(self, content: bytes = b"") -> bytes:
        """Give the content that rank 0 has: data, never a pickle."""
        if self.size == 1:
            return content
        import numpy as np
        import torch
        import torch.distributed as dist

        length = torch.tensor([len(content)])
        dist.broadcast(length, 0)
        values = torch.zeros(int(length), dtype=torch.uint8)
        if self.rank == 0 and content:
            values = torch.from_numpy(np.frombuffer(bytearray(content), np.uint8))
        if len(values):
            dist.broadcast(values, 0)
        return values.numpy().tobytes()

    def order(self, **order: Any) -> None:
        """Tell the others what to do; without arguments, to stop."""
        self.shared(json.dumps(order).encode())

    def next_order(self) -> dict[str, Any]:
        """Wait for what rank 0 orders; empty where there is nothing more to do."""
        order: dict[str, Any] = json.loads(self.shared())
        return order

    def added(self, value: torch.Tensor) -> torch.Tensor:
        """Add a tensor up over all processes."""
        if self.size == 1:
            return value
        import torch.distributed as dist

        total = value.detach().clone().cpu()
        dist.all_reduce(total)
        return total

    def joined(self, student: torch.nn.Module) -> torch.nn.Module:
        """Let a module average its gradients over all processes."""
        if self.size == 1:
            return student
        from torch.nn.parallel import DistributedDataParallel

        return DistributedDataParallel(student, forward_sync_buffers=False)

    def share(self, batch: list[int]) -> list[int]:
        """Give this process's samples of a batch."""
        return batch[self.rank :: self.size]


ALONE = Processes()
