"""Compare observers and corrections: calibrated on one half of the calibration data, judged on the other, and back.

The evaluation data is not touched. Drops are those of the configuration's first accuracy metric, with the intervals of
a paired bootstrap; distances are the loader's loss of int8's raw outputs, float32's being the target.

    QGATE_ASSETS=... python benchmarks/observers.py --json observers.json
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console
from rich.table import Table

from qgate.config.model import ObserverConfig
from qgate.engine.distance import output_distances
from qgate.engine.evaluate import evaluate
from qgate.engine.figures import Comparison
from qgate.engine.gate import Gate
from qgate.engine.heldout import Part
from qgate.engine.load import Inputs
from qgate.engine.progress import Silent, StepClock
from qgate.engine.quantize import quantize
from qgate.engine.state import torch_state
from qgate.files import write_atomically

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch

    from qgate.config.model import ModelConfig
    from qgate.engine.figures import Figures

CONFIG = Path(__file__).parents[1] / "examples" / "yolov5n-coco" / "qgate.toml"
SEED = 7
ACTIVATIONS = (
    ObserverConfig("minmax"),
    ObserverConfig("moving_average"),
    ObserverConfig("histogram"),
    ObserverConfig("mse"),
    ObserverConfig("entropy"),
    *(ObserverConfig("percentile", {"percentile": share}) for share in (99.9, 99.99, 99.999)),
)
RECIPES = {
    **{" ".join(map(str, (each.observer, *each.options.values()))): {"activation": each} for each in ACTIVATIONS},
    "histogram, per_channel_mse": {"weight": ObserverConfig("per_channel_mse")},
    "histogram, no correction": {"bias_correction": False},
    "histogram, gptq": {"weight_rounding": "gptq"},
    "mse, gptq": {"activation": ObserverConfig("mse"), "weight_rounding": "gptq"},
}


def main() -> None:
    """Measure every recipe with each backend on both halves, print a table, and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, default=CONFIG)
    parser.add_argument("--backend", action="append", help="repeatable; without it: fused and fbgemm")
    parser.add_argument("--recipe", action="append", choices=RECIPES, help="repeatable; without it: all")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    gate = Gate.open(options.config)
    with torch_state(seed=SEED, num_threads=1):
        found = {
            f"{backend} {name}": list(drops(gate, {"backend": backend, **RECIPES[name]}))
            for backend in options.backend or ("fused", "fbgemm")
            for name in options.recipe or RECIPES
        }
    show(found)
    if options.json:
        write_atomically(options.json, json.dumps(found, indent=2).encode())


def drops(gate: Gate, recipe: dict[str, Any]) -> Iterator[Figures]:
    """Give the figures on each half of the calibration data, calibrated on the other."""
    (model, *_), name = gate.models, metric_of(gate)
    inputs = gate.inputs(model.name)
    drawn = np.random.default_rng(SEED).permutation(len(inputs.calibration)).tolist()
    halves = [Part(inputs.calibration, sorted(half)) for half in (drawn[: len(drawn) // 2], drawn[len(drawn) // 2 :])]
    for seen, judged in (halves, halves[::-1]):
        config = replace(model, quantization=replace(model.quantization, **recipe))
        figures = measure(gate, config, Inputs(inputs.loaded, seen, judged), name)
        yield {key: figures[key] for key in ("baseline", "candidate", "drop", "drop_interval", "distance")}


def measure(gate: Gate, model: ModelConfig, inputs: Inputs, name: str) -> Figures:
    """Quantize and judge."""
    reference, _ = quantize(model, gate.registry, inputs, range(len(inputs.calibration)), StepClock(Silent()))
    reference.meta["byte_scale"] = inputs.loaded.byte_scale  # as an artifact gives it
    backend = gate.registry.backends.get(model.quantization.backend)()
    int8: torch.nn.Module = backend.lower(reference, inputs.loaded.example_inputs)
    metrics = {arm: {name: gate.registry.metrics.get(name)(inputs.loaded.class_names)} for arm in ("float32", "int8")}
    evaluate(inputs.loaded, {"float32": inputs.loaded.module, "int8": int8}, inputs.evaluation, metrics, Silent())
    settings, count = gate.config.qgate, len(inputs.evaluation)
    float32, quantized = (metrics[arm][name] for arm in ("float32", "int8"))
    figures = Comparison(float32, quantized, count, settings.confidence, settings.seed).figures()
    return {**figures, "distance": distance(inputs, int8)}


def distance(inputs: Inputs, int8: torch.nn.Module) -> float | None:
    """Give the mean distance of int8's raw outputs from float32's; None where the loader has no loss for them."""
    loss = inputs.loaded.distillation_loss
    return loss and float(np.mean(output_distances(inputs.loaded, int8, inputs.evaluation, loss)))


def metric_of(gate: Gate) -> str:
    """Name the first accuracy metric that has a limit."""
    name = next((name for name in gate.models[0].thresholds if name in gate.registry.metrics), None)
    return name or sys.exit(f"{gate.config.path} limits no accuracy metric")


def show(found: dict[str, list[Figures]]) -> None:
    """Print the table."""
    table = Table("backend and recipe", "drop on one half", "on the other", "mean", "distance")
    for name, halves in found.items():
        said = [f"{half['drop']:+.4f} ({', '.join(f'{end:+.4f}' for end in half['drop_interval'])})" for half in halves]
        distances = [half["distance"] for half in halves if half["distance"] is not None]
        mean = f"{np.mean([half['drop'] for half in halves]):+.4f}"
        table.add_row(name, *said, mean, f"{np.mean(distances):.4f}" if distances else "")
    Console().print(table)


if __name__ == "__main__":
    main()
