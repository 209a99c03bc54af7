"""Run a gate with an empty cache, and again, and tell how long what is left of a second run takes.

Each run is `qgate check` in a new process: interpreter, imports, loading and all. Counted is what it takes beyond its
timing step; on a busy machine, look at the CPU time of a run without that step (`--no-timing`). The cache that the
configuration names is emptied.

    QGATE_ASSETS=... python benchmarks/caching.py --config examples/yolov5n-coco/qgate-fused.toml
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from qgate.engine.gate import Gate
from qgate.files import write_atomically
from qgate.results import load_results

LIMIT = 6.0


@dataclass(frozen=True)
class Run:
    """One run: wall time, that of its timing step, CPU time, all in seconds, and how much came from the cache."""

    run: str
    wall: float
    timing: float
    cpu: float
    cached: int

    @property
    def beyond(self) -> float:
        """Give the seconds beyond the timing step."""
        return self.wall - self.timing


def main() -> int:
    """Measure, print a table, and fail where a second run takes too long."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--no-timing", action="store_true", help="leave the timing step out")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    gate = Gate.open(options.config)
    shutil.rmtree(gate.config.qgate.cache, ignore_errors=True)
    flags = ["--no-timing"] if options.no_timing else []
    runs = [measure(run, gate, flags) for run in ("first", "second")]
    show(runs)
    if options.json:
        write_atomically(options.json, json.dumps([asdict(run) for run in runs], indent=2).encode())
    return int(runs[1].beyond > LIMIT)


def measure(run: str, gate: Gate, flags: list[str]) -> Run:
    """Run the gate in a new process, whatever its verdict."""
    command = [sys.executable, "-m", "qgate", "check", "--config", str(gate.config.path), *flags]
    begin, cpu = time.perf_counter(), children_seconds()
    finished = subprocess.run(command, check=False, capture_output=True, text=True)  # noqa: S603
    wall, cpu = time.perf_counter() - begin, children_seconds() - cpu
    if finished.returncode not in {0, 1}:
        sys.exit(finished.stderr)
    models = load_results(gate.config.qgate.results).models.values()
    timing = sum(model.seconds.get("timing", 0.0) for model in models)
    return Run(run, wall, timing, cpu, sum(len(model.cached) for model in models))


def children_seconds() -> float:
    """Give the CPU time of all processes that were started and have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def show(runs: list[Run]) -> None:
    """Print the table, in seconds."""
    table = Table("run", "wall", "timing step", "beyond it", "CPU", "from the cache")
    for run in runs:
        seconds = (run.wall, run.timing, run.beyond, run.cpu)
        table.add_row(run.run, *(f"{value:.1f}" for value in seconds), str(run.cached))
    Console().print(table)


if __name__ == "__main__":
    sys.exit(main())
