"""Count wrong verdicts on a speedup that is exactly at its limit, where timing looks at its rounds again and again.

Timing adds rounds until the interval of the speedup excludes the limit. Where the truth is the limit, every exclusion
is an error, and every further look is another chance of one. Rounds are simulated with noise as it was measured on
shared machines, and worse; every experiment goes on to the last look, however long that would take on a clock.

    python benchmarks/timing_looks.py --experiments 300 --output timing_looks.json

Exits with 1 where a share of errors is above 5% by more than chance.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")

import numpy as np
from rich.console import Console
from rich.table import Table

from qgate.engine.speedup import LOOKS, Goal, estimate
from qgate.files import write_atomically

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

TRUTH = 1.3
GOAL = Goal(floors=(TRUTH,), confidence=0.95)


def independent(rng: np.random.Generator) -> NDArray[np.float64]:
    """Give logarithms of four passes' times a round, with heavy tails: 2.5% noise, kurtosis as measured."""
    return 0.025 * rng.standard_t(4, (LOOKS[-1], 4))


def bursts(rng: np.random.Generator) -> NDArray[np.float64]:
    """Slow one pass in ten, by a third in the mean."""
    shape = (LOOKS[-1], 4)
    slowed: NDArray[np.float64] = rng.binomial(1, 0.1, shape) * rng.exponential(0.3, shape)
    return independent(rng) + slowed


def drifting(rng: np.random.Generator) -> NDArray[np.float64]:
    """Let the machine get slower and faster, 2% from pass to pass; rounds alternate in their order."""
    drift = np.cumsum(rng.normal(0, 0.02, 4 * LOOKS[-1])).reshape(-1, 4)
    drift[1::2] = drift[1::2][:, [2, 3, 0, 1]]
    noisy: NDArray[np.float64] = independent(rng) + drift
    return noisy


def wandering(rng: np.random.Generator) -> NDArray[np.float64]:
    """Let the candidate alone get slower and faster: neighbouring ratios correlate by 0.6. Not seen yet, but feared."""
    noise, wander = independent(rng), np.zeros(LOOKS[-1])
    for index in range(1, len(wander)):
        wander[index] = 0.6 * wander[index - 1] + rng.normal(0, 0.02)
    noise[:, [1, 2]] += wander[:, np.newaxis]
    return noise


POPULATIONS = {"independent": independent, "bursts": bursts, "drifting": drifting, "wandering": wandering}


def main() -> int:
    """Simulate, print a table; 1 where there are too many errors."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--experiments", type=int, default=300)
    parser.add_argument("--output", type=Path, metavar="FILE")
    options = parser.parse_args()
    counts = {}
    with ProcessPoolExecutor() as executor:
        for name, population in POPULATIONS.items():
            verdicts = list(executor.map(partial(verdict, population), range(options.experiments), chunksize=5))
            counts[name] = {kind: verdicts.count(kind) for kind in ("passed", "failed", "inconclusive")}
            print(name, counts[name], flush=True)
    show(counts, options.experiments)
    if options.output:
        write_atomically(options.output, (json.dumps(counts, indent=2) + "\n").encode())
    error = 1 - GOAL.confidence
    most = options.experiments * error + 2 * math.sqrt(options.experiments * error * (1 - error))
    return int(any(count["passed"] + count["failed"] > most for count in counts.values()))


def verdict(population: Callable[[np.random.Generator], NDArray[np.float64]], seed: int) -> str:
    """Give the verdict of one timing."""
    seconds = np.exp(population(np.random.default_rng(seed))) * [TRUTH, 1, 1, TRUTH]
    for look in LOOKS:
        interval = estimate(seconds[:look], GOAL).interval
        if GOAL.is_reached(interval):
            return "passed" if interval[0] >= TRUTH else "failed"
    return "inconclusive"


def show(counts: dict[str, dict[str, int]], experiments: int) -> None:
    """Print the shares of errors."""
    table = Table("noise", "passed", "failed", "errors, %", box=None)
    for name, count in counts.items():
        errors = count["passed"] + count["failed"]
        table.add_row(name, str(count["passed"]), str(count["failed"]), f"{100 * errors / experiments:.1f}")
    Console(width=110).print(table)


if __name__ == "__main__":
    sys.exit(main())
