"""Process-wide state of torch that a run needs to set, and puts back."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextlib.contextmanager
def torch_state(*, seed: int, num_threads: int) -> Iterator[None]:
    """Seed torch's generator and pin its thread count; both are restored, as is the quantized engine."""
    threads, engine = torch.get_num_threads(), torch.backends.quantized.engine
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        torch.set_num_threads(num_threads)
        try:
            yield
        finally:
            torch.set_num_threads(threads)
            torch.backends.quantized.engine = engine
