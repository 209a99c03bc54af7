"""Count right, inconclusive and wrong verdicts on a speedup where the truth is known, on quiet and busy cores.

The digits example's float32 network is timed against itself: a copy of it (A/A, the true speedup is 1), or two
passes of the copy against three of the original (planted, it is 1.5). Limits lie 5% to either side of the truth, and at
1.3, which a speedup of 1.5 should keep with ease. Beside it runs nothing, stress-ng on one core for half of the time,
or stress-ng on all cores and their memory.

    python benchmarks/timing_under_load.py --runs 10 --output timing_under_load.json

Exits with 1 where a verdict is wrong.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import itertools
import json
import os
import shutil
import subprocess
import sys
import time
from collections import defaultdict
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")

import numpy as np
from rich.console import Console
from rich.table import Table

from qgate.config.model import TimingConfig
from qgate.engine.progress import Silent
from qgate.engine.selftest import Repeated
from qgate.engine.state import torch_state
from qgate.engine.timing import Goal, measure
from qgate.files import write_atomically
from qgate.quantization.float_forms import float_forms
from qgate.statistics import judge_interval
from qgate_yolov5.loader import YoloV5Loader, YoloV5Options

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import torch

    from qgate.protocols import LoadedModel

DIGITS = Path(__file__).parents[1] / "examples" / "digits" / "digits.pt"
LOADS = {
    "none": [],
    "half a core": ["--cpu", "1", "--cpu-load", "50"],
    "all cores": ["--cpu", str(os.cpu_count()), "--vm", "1", "--vm-bytes", "256M"],
}
PASSES = {"A/A": (1, 1), "planted": (3, 2)}  # of baseline and candidate
LIMITS = {"A/A": (0.95, 1.05), "planted": (1.3, 1.425, 1.575)}
OUTCOMES = ("right", "inconclusive", "wrong")


@dataclass(frozen=True)
class Setting:
    """What is timed beside which load, and the limit that its speedup is held against."""

    case: str
    load: str
    limit: float

    @property
    def truth(self) -> float:
        """Give the true speedup."""
        of_baseline, of_candidate = PASSES[self.case]
        return of_baseline / of_candidate


@dataclass(frozen=True)
class Trial:
    """One timing, and whether its verdict is `right`, `wrong` or `inconclusive`."""

    setting: Setting
    outcome: str
    seconds: float
    figures: dict[str, Any]


def main() -> int:
    """Run all trials, print a table; 1 where a verdict is wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=10, help="of each case, limit and load")
    parser.add_argument("--max-seconds", type=float, default=20.0, help="as in qgate.toml")
    parser.add_argument("--num-threads", type=int, default=1)
    parser.add_argument("--weights", type=Path, default=DIGITS, help="a checkpoint of YOLOv5")
    parser.add_argument("--image-size", type=int, default=192)
    parser.add_argument("--output", type=Path, metavar="FILE")
    options = parser.parse_args()
    if not shutil.which("stress-ng"):
        sys.exit(
            "timing_under_load.py: stress-ng is missing; it makes the load: install it (apt-get install stress-ng)"
        )
    loaded = YoloV5Loader().load(YoloV5Options(options.weights, options.image_size))
    with torch_state(seed=0, num_threads=options.num_threads):
        trials = list(run_all(loaded, options.runs, options.max_seconds))
    show(trials)
    if options.output:
        document = [asdict(trial) for trial in trials]
        write_atomically(options.output, (json.dumps(document, indent=2) + "\n").encode())
    return int(any(trial.outcome == "wrong" for trial in trials))


def run_all(loaded: LoadedModel, runs: int, max_seconds: float) -> Iterator[Trial]:
    """Time every case at every limit under every load, again and again."""
    networks = [float_forms(copy.deepcopy(loaded.module), loaded.example_inputs)["frozen"] for _ in range(2)]
    arms = {case: arms_of(networks, passes) for case, passes in PASSES.items()}
    config = TimingConfig(max_seconds=max_seconds)
    for seed, load in itertools.product(range(runs), LOADS):
        with stress(LOADS[load]):
            for setting in (Setting(case, load, limit) for case in PASSES for limit in LIMITS[case]):
                begin = time.perf_counter()
                goal = Goal((setting.limit,), seed=seed)
                figures = measure(arms[setting.case], loaded.example_inputs, config, goal, Silent()).figures
                trial = Trial(setting, outcome(setting, figures["interval"]), time.perf_counter() - begin, figures)
                print(trial, flush=True)
                yield trial


def arms_of(networks: Iterable[torch.nn.Module], passes: Iterable[int]) -> dict[str, torch.nn.Module]:
    """Give a baseline and a candidate that run their network so many times."""
    baseline, candidate = (Repeated(*arm) for arm in zip(networks, passes, strict=True))
    return {"frozen": baseline, "int8": candidate}


@contextlib.contextmanager
def stress(arguments: list[str]) -> Iterator[None]:
    """Run stress-ng beside, where there are arguments for it. Raises `RuntimeError` where it did not last."""
    if not arguments:
        yield
        return
    command = ["stress-ng", "--quiet", "--timeout", "3600", *arguments]
    with subprocess.Popen(command) as process:  # noqa: S603  # constant arguments
        try:
            yield
            if process.poll() is not None:
                raise RuntimeError(f"stress-ng ended by itself, with exit code {process.returncode}")
        finally:
            process.terminate()


def outcome(setting: Setting, interval: Any) -> str:
    """Judge as the gate does, and hold the verdict against the truth."""
    status = judge_interval(interval, setting.limit, floor=True) if interval else "inconclusive"
    if status == "inconclusive":
        return status
    return "right" if (status == "passed") == (setting.truth >= setting.limit) else "wrong"


def show(trials: list[Trial]) -> None:
    """Print how often each outcome came, and the medians of what was measured."""
    groups: defaultdict[Setting, list[Trial]] = defaultdict(list)
    for trial in trials:
        groups[trial.setting].append(trial)
    table = Table("load", "case", "truth", "limit", *OUTCOMES, "width", "floor", "rounds", "thrown", "s", box=None)
    for setting, group in groups.items():
        table.add_row(setting.load, setting.case, f"{setting.truth:g}", f"{setting.limit:g}", *cells(group))
    Console(width=110).print(table)
    print("width, floor (of noise), rounds, thrown (away) and s are medians; a width only of intervals that there are")


def cells(group: list[Trial]) -> Iterator[str]:
    """Write what the trials of one setting gave."""
    for name in OUTCOMES:
        yield str(sum(trial.outcome == name for trial in group))
    figures = [trial.figures for trial in group]
    yield median([found["interval"][1] - found["interval"][0] for found in figures if found["interval"]], 4)
    yield median([found["noise_floor"] for found in figures if found["interval"]], 4)
    yield median([found["rounds"] for found in figures], 0)
    yield median([found["preempted_rounds"] for found in figures], 0)
    yield median([trial.seconds for trial in group], 1)


def median(values: list[float], decimals: int) -> str:
    """Write a median."""
    return f"{np.median(values):.{decimals}f}" if values else "-"


if __name__ == "__main__":
    sys.exit(main())
