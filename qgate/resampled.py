"""A metric's values in each bootstrap resample, as text: what makes a later run comparable, resample by resample."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def encode(values: NDArray[np.float64]) -> str:
    """Write values, (resamples,), as little-endian float32 in base64: 5 kB of text for a thousand."""
    return base64.b64encode(values.astype("<f4").tobytes()).decode("ascii")


def decode(text: str) -> NDArray[np.float64]:
    """Read what `encode` wrote. Raises `ValueError` where it is something else."""
    return np.frombuffer(base64.b64decode(text, validate=True), dtype="<f4").astype(np.float64)
