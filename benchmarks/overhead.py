"""Compare a whole cold gate with the forward passes that it cannot do without.

The gate runs as `qgate check` in a new process: interpreter, imports, loading, quantizing, reading images, metrics and
all. The forward passes are both arms over the evaluation set, on as many threads as the gate uses; the plain float32
model over the calibration samples, without observers; and the timing rounds, which are nothing but forward passes.
Images are read and preprocessed beforehand. The cache that the configuration names is emptied.

    QGATE_ASSETS=... python benchmarks/overhead.py --config examples/yolov5n-coco/qgate.toml
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")

import torch
from rich.console import Console
from rich.table import Table

from qgate import load_artifact
from qgate.engine.gate import Gate
from qgate.engine.load import open_inputs
from qgate.files import write_atomically
from qgate.quantization.float_forms import float_forms
from qgate.results import load_results

if TYPE_CHECKING:
    from collections.abc import Callable

    from qgate.engine.load import Inputs

LIMIT = 1.6


def main() -> int:
    """Measure both, print a table, and fail where the ratio is above the limit."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    gate = Gate.open(options.config)
    shutil.rmtree(gate.config.qgate.cache, ignore_errors=True)
    gate_seconds = run_gate(options.config)
    steps = load_results(gate.config.qgate.results).models[gate.models[0].name].seconds
    forward = forward_seconds(gate, steps["timing"])
    ratio = gate_seconds / sum(forward.values())
    show(gate_seconds, steps, forward, ratio)
    if options.json:
        figures = {"gate": gate_seconds, "steps": steps, "forward": forward, "ratio": ratio}
        write_atomically(options.json, json.dumps(figures, indent=2).encode())
    return int(ratio > LIMIT)


def run_gate(config: Path) -> float:
    """Run the gate in a new process; give its wall time in seconds, whatever its verdict."""
    begin = time.perf_counter()
    command = [sys.executable, "-m", "qgate", "check", "--config", str(config)]
    finished = subprocess.run(command, check=False, capture_output=True, text=True)  # noqa: S603
    if finished.returncode not in {0, 1}:
        sys.exit(finished.stderr)
    return time.perf_counter() - begin


def forward_seconds(gate: Gate, timing: float) -> dict[str, float]:
    """Time the forward passes of the gate's first model, in seconds."""
    torch.set_num_threads(gate.config.qgate.num_threads)
    model = gate.models[0]
    inputs = open_inputs(model, gate.registry)
    floats = float_forms(inputs.loaded.module, inputs.loaded.example_inputs)
    int8 = load_artifact(gate.config.qgate.artifacts / f"{model.name}.pt", registry=gate.registry)
    evaluation = preprocessed(inputs, range(len(inputs.evaluation)), inputs.evaluation)
    samples = model.data.calibration.num_samples or len(inputs.calibration)
    calibration = preprocessed(inputs, range(samples), inputs.calibration)
    for arm in (floats["frozen"], int8):
        passes([arm], evaluation[:3], workers=1)  # frozen modules optimise themselves in their first runs
    workers = max(1, len(os.sched_getaffinity(0)) // gate.config.qgate.num_threads)
    return {
        "calibration, float32": passes([inputs.loaded.module], calibration, workers=1),
        "evaluation, both arms": passes([floats["frozen"], int8], evaluation, workers=workers),
        "timing rounds": timing,
    }


def preprocessed(inputs: Inputs, indices: range, dataset: Any) -> list[tuple[torch.Tensor, ...]]:
    """Read samples as the module's inputs."""
    return [inputs.loaded.preprocess(dataset.sample(index).input)[0] for index in indices]


def passes(arms: list[Callable[..., Any]], samples: list[tuple[torch.Tensor, ...]], *, workers: int) -> float:
    """Time every arm over every sample."""

    def one(values: tuple[torch.Tensor, ...]) -> None:
        with torch.inference_mode():
            for arm in arms:
                arm(*values)

    threads = torch.get_num_threads()
    begin = time.perf_counter()
    with ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(threads,)) as pool:
        list(pool.map(one, samples))
    return time.perf_counter() - begin


def show(gate_seconds: float, steps: dict[str, float], forward: dict[str, float], ratio: float) -> None:
    """Print both sides."""
    table = Table("what", "seconds", box=None)
    for name, seconds in forward.items():
        table.add_row(f"forward passes: {name}", f"{seconds:.1f}")
    table.add_row("forward passes: sum", f"{sum(forward.values()):.1f}")
    for name, seconds in steps.items():
        table.add_row(f"gate: {name}", f"{seconds:.1f}")
    table.add_row("gate: the whole process", f"{gate_seconds:.1f}")
    table.add_row(f"ratio (at most {LIMIT})", f"{ratio:.2f}")
    Console(width=80).print(table)


if __name__ == "__main__":
    sys.exit(main())
