"""Measure how far other processes move the ratio of float32's and int8's time on the core.

Who keeps the cores busy also empties the caches, and float32 needs more of them than int8: on a busy machine, a speedup
by time on the core is not quite that of a quiet one. The gate allows for 10% then (`engine/timing.py`); here is what
several kinds of stress-ng do to the fastest float32 form and to an artifact.

    qgate export --config qgate.toml --output digits.pt
    python benchmarks/contention.py --artifact digits.pt --output contention.json
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from qgate import load_artifact
from qgate.engine.speedup import Goal, estimate
from qgate.engine.state import torch_state
from qgate.engine.stopwatch import Pass, Stopwatch
from qgate.files import write_atomically
from qgate.quantization.float_forms import float_forms
from qgate_yolov5.loader import YoloV5Loader, YoloV5Options

DIGITS = Path(__file__).parents[1] / "examples" / "digits" / "digits.pt"
CORES = str(os.cpu_count())
LOADS = {
    "none": [],
    "cpu": ["--cpu", CORES],
    "cpu and memory": ["--cpu", CORES, "--vm", "1", "--vm-bytes", "256M"],
    "caches": ["--cache", CORES],
    "memory bandwidth": ["--stream", CORES],
}
WARM_UP = 5


@dataclass(frozen=True)
class Finding:
    """The ratio of float32's to int8's time on the core beside one load, and the share of undisturbed passes."""

    load: str
    rounds: int
    undisturbed: float
    ratio: float
    interval: tuple[float, float]


def main() -> int:
    """Time both arms beside each load and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--artifact", type=Path, required=True, help="what `qgate export` wrote")
    parser.add_argument("--weights", type=Path, default=DIGITS, help="the checkpoint of YOLOv5 that it was made of")
    parser.add_argument("--image-size", type=int, default=192)
    parser.add_argument("--seconds", type=float, default=30.0, help="for each load")
    parser.add_argument("--output", type=Path, metavar="FILE")
    options = parser.parse_args()
    if not shutil.which("stress-ng"):
        sys.exit("contention.py: stress-ng is missing; it makes the load: install it (apt-get install stress-ng)")
    loaded = YoloV5Loader().load(YoloV5Options(options.weights, options.image_size))
    float32 = float_forms(loaded.module, loaded.example_inputs)["frozen"]
    arms = (float32, load_artifact(options.artifact))
    with torch_state(seed=0, num_threads=1), torch.inference_mode():
        findings = [beside(load, arms, loaded.example_inputs, options.seconds) for load in LOADS]
    show(findings)
    if options.output:
        document = [asdict(finding) for finding in findings]
        write_atomically(options.output, (json.dumps(document, indent=2) + "\n").encode())
    return 0


def beside(
    load: str, arms: tuple[torch.nn.Module, torch.nn.Module], inputs: tuple[torch.Tensor, ...], seconds: float
) -> Finding:
    """Time both arms beside a load, in rounds of float32, int8, int8, float32."""
    if not LOADS[load]:
        return find(load, timed(arms, inputs, seconds))
    command = ["stress-ng", "--quiet", "--timeout", "3600", *LOADS[load]]
    with subprocess.Popen(command) as process:  # noqa: S603  # constant arguments
        try:
            return find(load, timed(arms, inputs, seconds))
        finally:
            process.terminate()


def timed(
    arms: tuple[torch.nn.Module, torch.nn.Module], inputs: tuple[torch.Tensor, ...], seconds: float
) -> list[list[Pass]]:
    """Run rounds for so many seconds."""
    watch, (float32, int8) = Stopwatch(), arms
    rounds: list[list[Pass]] = []
    until = watch.now() + seconds
    while watch.now() < until or len(rounds) <= 2 * WARM_UP:
        rounds.append([watch.run(arm, inputs) for arm in (float32, int8, int8, float32)])
    return rounds[WARM_UP:]


def find(load: str, rounds: list[list[Pass]]) -> Finding:
    """Give the ratio of time on the core and its interval."""
    found = estimate(np.array([[run.on_core for run in passes] for passes in rounds]), Goal())
    undisturbed = np.mean([run.is_undisturbed for passes in rounds for run in passes])
    return Finding(load, len(rounds), float(undisturbed), found.value, found.interval)


def show(findings: list[Finding]) -> None:
    """Print the ratios, and how far they are from the first."""
    table = Table("beside", "rounds", "undisturbed", "float32 / int8", "interval", "moved by", box=None)
    for finding in findings:
        interval = "{:.3f} to {:.3f}".format(*finding.interval)
        moved = f"{finding.ratio / findings[0].ratio - 1:+.1%}"
        cells = (str(finding.rounds), f"{finding.undisturbed:.0%}", f"{finding.ratio:.3f}", interval, moved)
        table.add_row(finding.load, *cells)
    Console(width=110).print(table)


if __name__ == "__main__":
    sys.exit(main())
