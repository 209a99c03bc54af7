"""A valid file, and how a mistake in it is written down."""

from __future__ import annotations

from dataclasses import dataclass

VALID = """\
schema_version = 1
[qgate]
seed = 0
[models.m]
loader = "net"
weights = "m.pt"
[models.m.data]
format = "text"
calibration = { path = "train.txt" }
evaluation = { path = "val.txt" }
[models.m.quantization]
backend = "fbgemm"
[models.m.timing]
warmup_rounds = 5
[models.m.thresholds.map]
max_drop = 0.01
"""


@dataclass(frozen=True)
class Mistake:
    """`old` is replaced by `new` in the valid file; `expected` follows `qgate.toml:`."""

    id: str
    old: str
    new: str
    expected: str
