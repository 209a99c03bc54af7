"""Hold a recipe that was found against another on samples that neither saw.

These are what calibration left over, and the evaluation samples, each at several image sizes.

Both recipes are calibrated on the same samples. A positive drop is a loss; a positive gain says that the recipe found
is the better one. Intervals are of a paired bootstrap. Distances are the loader's loss of int8's raw outputs, float32's
being the target.

    QGATE_ASSETS=... python benchmarks/unseen.py --found tuned/qgate.toml --sizes 640 512
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from observers import CONFIG, metric_of
from rich.console import Console
from rich.table import Table

from qgate.engine.distance import output_distances
from qgate.engine.evaluate import evaluate
from qgate.engine.figures import Comparison
from qgate.engine.gate import Gate
from qgate.engine.heldout import Part
from qgate.engine.progress import Silent, StepClock
from qgate.engine.quantize import choose_calibration, quantize
from qgate.engine.state import torch_state
from qgate.files import write_atomically

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import torch

    from qgate.config.model import ModelConfig
    from qgate.engine.load import Inputs

FUSED = CONFIG.with_name("qgate-fused.toml")


def main() -> None:
    """Measure both recipes on all unseen samples, print a table, and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, default=FUSED, help="whose recipe is the other one")
    parser.add_argument("--found", type=Path, required=True, help="a file of the same model with the recipe found")
    parser.add_argument("--sizes", type=int, nargs="+", default=[640, 512])
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    gates = {"other": Gate.open(options.config), "found": Gate.open(options.found)}
    seed = gates["other"].config.qgate.seed
    with torch_state(seed=seed, num_threads=1):
        found = [row for size in options.sizes for row in rows(gates, size)]
    show(found)
    if options.json:
        write_atomically(options.json, json.dumps(found, indent=2).encode())


def rows(gates: Mapping[str, Gate], size: int) -> Iterator[dict[str, Any]]:
    """Give the figures at one image size, on what calibration left over and on the evaluation samples."""
    models = {arm: _sized(gate.models[0], size) for arm, gate in gates.items()}
    gate = gates["other"]
    opened = Gate(replace(gate.config, models={"model": models["other"]}), gate.registry, (models["other"],),
                  timing=False, update_blessed=False)  # fmt: skip
    inputs = opened.inputs("model")
    chosen = choose_calibration(models["other"], gate.registry, inputs, gate.config.qgate.seed)
    left = sorted(set(range(len(inputs.calibration))).difference(chosen))
    arms = {arm: _int8(gate, model, inputs, chosen) for arm, model in models.items()}
    for name, data in (("left over by calibration", Part(inputs.calibration, left)), ("evaluation", inputs.evaluation)):
        yield {"size": size, "samples": name, **_compare(gate, inputs, arms, data)}


def _sized(model: ModelConfig, size: int) -> ModelConfig:
    return replace(model, name="model", options=replace(model.options, image_size=size))


def _int8(gate: Gate, model: ModelConfig, inputs: Inputs, chosen: list[int]) -> torch.nn.Module:
    reference, _ = quantize(model, gate.registry, inputs, chosen, StepClock(Silent()))
    reference.meta["byte_scale"] = inputs.loaded.byte_scale  # as an artifact gives it
    backend = gate.registry.backends.get(model.quantization.backend)()
    lowered: torch.nn.Module = backend.lower(reference, inputs.loaded.example_inputs)
    return lowered


def _compare(gate: Gate, inputs: Inputs, int8: Mapping[str, torch.nn.Module], data: Any) -> dict[str, Any]:
    name, settings, loaded = metric_of(gate), gate.config.qgate, inputs.loaded
    arms = {"float32": loaded.module, **int8}
    metrics = {arm: {name: gate.registry.metrics.get(name)(loaded.class_names)} for arm in arms}
    evaluate(loaded, arms, data, metrics, Silent())
    against = {"drop": ("float32", "other"), "drop found": ("float32", "found"), "gain": ("found", "other")}
    drops = {
        said: Comparison(*(metrics[arm][name] for arm in pair), len(data), settings.confidence, settings.seed).figures()
        for said, pair in against.items()
    }
    distances = {arm: _distances(loaded, module, data) for arm, module in int8.items()}
    return {
        "count": len(data),
        **{said: [figures["drop"], *figures["drop_interval"]] for said, figures in drops.items()},
        "distance": float(np.mean(distances["other"])),
        "distance found": float(np.mean(distances["found"])),
        "closer on": int(np.sum(np.less(distances["found"], distances["other"]))),
    }


def _distances(loaded: Any, int8: torch.nn.Module, data: Any) -> list[float]:
    return output_distances(loaded, int8, data, loaded.distillation_loss) if loaded.distillation_loss else [np.nan]


def show(found: list[dict[str, Any]]) -> None:
    """Print the table."""
    table = Table("size", "samples", "drop", "drop, recipe found", "gain", "distance, before and found", "closer on")
    for row in found:
        said = ["{:+.4f} ({:+.4f}, {:+.4f})".format(*row[key]) for key in ("drop", "drop found", "gain")]
        distances = f"{row['distance']:.4f} {row['distance found']:.4f}"
        table.add_row(str(row["size"]), f"{row['count']} {row['samples']}", *said, distances, str(row["closer on"]))
    Console().print(table)


if __name__ == "__main__":
    main()
