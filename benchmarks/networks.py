"""Time networks of the plain kinds in float32 and with every int8 backend, one thread at a time.

    python benchmarks/networks.py --threads 1 --output networks.json

Weights are random, and so are calibration and inputs: only times are of interest, and how far int8's outputs are from
float32's as a sign that it computes the same. Forms run in rounds, each in turn; a ratio is the median over rounds of
the fastest float32 form's time to that of another. At one thread a time is that on the core, so that other processes
count for little.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
from plain_networks import NETWORKS, build
from rich.console import Console
from rich.table import Table

from qgate.engine.state import torch_state
from qgate.engine.stopwatch import Stopwatch
from qgate.environment import describe_environment
from qgate.files import write_atomically
from qgate.plugins import Registry, load_registry
from qgate.quantization.float_forms import float_forms
from qgate.quantization.observers import MinMaxObserver, PerChannelMinMaxObserver
from qgate.quantization.prepare import Recipe, convert, prepare
from qgate.statistics import median_ratio_interval

ROOT = Path(__file__).parents[1]
BACKENDS = ("fbgemm", "x86", "onednn", "fused")
CALIBRATION = 8
WARMUP = 5


@dataclass
class Form:
    """A network in one form, and the seconds of its passes."""

    name: str
    module: torch.nn.Module
    error: float
    seconds: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Figures:
    """What is said of a form: milliseconds, ratio to the fastest float32 form, and its outputs' error."""

    median_ms: float
    ratio: float
    interval: tuple[float, float] | None
    error: float


def main() -> None:
    """Measure every network, print a table of each, and write them all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--output", type=Path, metavar="FILE")
    options = parser.parse_args()
    registry = load_registry()
    figures = {}
    with torch_state(seed=0, num_threads=options.threads), torch.inference_mode(False):
        for name in options.networks:
            figures[name] = measure(name, registry, options.rounds)
            show(name, figures[name])
    if options.output:
        environment = describe_environment(options.threads, ROOT)
        networks = {name: {form: asdict(one) for form, one in found.items()} for name, found in figures.items()}
        document = {"environment": environment, "rounds": options.rounds, "networks": networks}
        write_atomically(options.output, (json.dumps(document, indent=2) + "\n").encode())


def measure(name: str, registry: Registry, rounds: int) -> dict[str, Figures]:
    """Build all forms of a network and time them."""
    module, shape = build(name)
    inputs = (torch.rand(shape),)
    floats = {f"float32 {form}": built for form, built in float_forms(module, inputs).items()}
    int8 = {backend: quantized(module, inputs, registry, backend) for backend in BACKENDS}
    expected = module(*inputs).detach()
    forms = [Form(form, built, error(built, inputs, expected)) for form, built in {**floats, **int8}.items()]
    run(forms, inputs, rounds)
    fastest = min((form for form in forms if form.name in floats), key=lambda form: float(np.median(form.seconds)))
    return {form.name: compared(form, fastest) for form in forms}


def quantized(
    module: torch.nn.Module, inputs: tuple[torch.Tensor, ...], registry: Registry, name: str
) -> torch.nn.Module:
    """Give the int8 form of one backend."""
    backend = registry.backends.get(name)()
    recipe = Recipe(
        activation=MinMaxObserver,
        weight=PerChannelMinMaxObserver,
        reduce_range=backend.needs_reduced_range(),
        float_outputs=getattr(backend, "float_outputs", False),
    )
    observed = prepare(module, recipe, backend.backend_config(), inputs)
    with torch.no_grad():
        for _ in range(CALIBRATION):
            observed(torch.rand_like(inputs[0]))
    return backend.lower(convert(observed, backend.backend_config()), inputs)


def error(module: torch.nn.Module, inputs: tuple[torch.Tensor, ...], expected: torch.Tensor) -> float:
    """Give the root mean square of the difference from float32's output, relative to that output's spread."""
    with torch.inference_mode():
        return float((module(*inputs) - expected).square().mean().sqrt() / expected.std())


def run(forms: list[Form], inputs: tuple[torch.Tensor, ...], rounds: int) -> None:
    """Time passes in rounds; a pass that is not timed goes before each, so that caches are the form's own."""
    stopwatch = Stopwatch()
    with torch.inference_mode():
        for number in range(WARMUP + rounds):
            for form in reversed(forms) if number % 2 else forms:
                stopwatch.run(form.module, inputs)
                timed = stopwatch.run(form.module, inputs)
                if number >= WARMUP:
                    form.seconds.append(timed.on_core if stopwatch.one_thread else timed.seconds)


def compared(form: Form, fastest: Form) -> Figures:
    """Make figures of passes."""
    base, seconds = np.array(fastest.seconds), np.array(form.seconds)
    interval = None if form is fastest else median_ratio_interval(base, seconds, 0.95, seed=0)
    return Figures(1e3 * float(np.median(seconds)), float(np.median(base / seconds)), interval, form.error)


def show(name: str, figures: dict[str, Figures]) -> None:
    """Print one network's table."""
    table = Table(
        "form", "ms", "times as fast", "95% interval", "output error", box=None, title=name, title_justify="left"
    )
    for form, one in figures.items():
        interval = "" if one.interval is None else f"{one.interval[0]:.2f} to {one.interval[1]:.2f}"
        table.add_row(form, f"{one.median_ms:.2f}", f"{one.ratio:.2f}", interval, f"{one.error:.1%}")
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
