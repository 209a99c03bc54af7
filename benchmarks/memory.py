"""Measure the peak memory of a forward pass, int8's against float32's: each form in a process of its own.

A form is loaded, what loading left over is given back to the system, and its peak forgotten; then three passes set the
peak anew. The increment is what they took beyond what was resident before.

    python benchmarks/memory.py --config qgate.toml --output memory.json

The gate must have run: the int8 form is its artifact. Linux only. Exits with 1 where int8's peak is not the lower one.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import os
import re
import subprocess
import sys
from pathlib import Path

os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")

import torch
from rich.console import Console
from rich.table import Table

from qgate.engine.artifact import load_artifact
from qgate.engine.gate import Gate
from qgate.engine.load import open_inputs
from qgate.files import write_atomically
from qgate.quantization.float_forms import float_forms

FLOATS = ("eager", "channels_last", "frozen")
FORMS = (*FLOATS, "int8", "int8, uint8 in")
MEGABYTE = 2**20
PASSES = 3


def main() -> int:
    """Measure each form, print a table; 1 where int8 takes more."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, default=Path("qgate.toml"))
    parser.add_argument("--output", type=Path, metavar="FILE")
    parser.add_argument("--form", choices=FORMS, help=argparse.SUPPRESS)  # what the processes are told
    options = parser.parse_args()
    if options.form:
        print(json.dumps(measure(options.config, options.form)))
        return 0
    figures = {form: measure_apart(options.config, form) for form in FORMS}
    table = Table("form", "before, MB", "peak, MB", "increment, MB", box=None)
    for form, (before, peak) in figures.items():
        table.add_row(form, *(f"{value / MEGABYTE:.1f}" for value in (before, peak, peak - before)))
    Console(width=80).print(table)
    if options.output:
        write_atomically(options.output, (json.dumps(figures, indent=2) + "\n").encode())
    least = min(figures[form][1] for form in FLOATS)
    return int(max(figures["int8"][1], figures["int8, uint8 in"][1]) >= least)


def measure_apart(config: Path, form: str) -> tuple[int, int]:
    """Measure a form in a process of its own."""
    command = [sys.executable, __file__, "--config", str(config), "--form", form]
    found = subprocess.run(command, check=True, capture_output=True, text=True).stdout  # noqa: S603  # this file
    before, peak = json.loads(found.splitlines()[-1])
    return before, peak


def measure(config: Path, form: str) -> tuple[int, int]:
    """Give the bytes that are resident before the passes, and their peak."""
    torch.set_num_threads(1)
    gate = Gate.open(config)
    model = gate.models[0]
    (example,) = open_inputs(model, gate.registry).loaded.example_inputs
    if form in FLOATS:
        loaded = open_inputs(model, gate.registry).loaded
        module = float_forms(loaded.module, loaded.example_inputs)[form]
        del loaded
    else:
        module = load_artifact(gate.config.qgate.artifacts / f"{model.name}.pt", registry=gate.registry)
    if form == "int8, uint8 in":
        example = example.to(torch.uint8)
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak is forgotten
    with torch.inference_mode():
        for _ in range(PASSES):
            module(example)
    return before, resident("VmHWM")


def resident(what: str) -> int:
    """Read a figure of this process' memory, in bytes."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    found = re.search(rf"{what}:\s+(\d+) kB", status)
    assert found, "this system does not say how much memory a process takes"
    return int(found[1]) * 1024


if __name__ == "__main__":
    sys.exit(main())
