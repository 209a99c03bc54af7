"""Hold a recipe that was found against another on samples that neither saw.

These are what calibration left over, and the evaluation samples, each at several image sizes.

Both recipes are calibrated on the same samples, as is torch's stock recipe for fbgemm. A positive drop is a loss; a
positive gain says that the recipe found is the better one. Intervals are of a paired bootstrap. Distances are the
loader's loss of int8's raw outputs, float32's being the target.

Recipes that differ by a rounding rank detections otherwise: by chance, and anew at each size. So the means over all
sizes are shown as well, of images drawn with all their sizes: the more sizes, the less of that chance is left.

    QGATE_ASSETS=... python benchmarks/unseen.py --found tuned/qgate.toml --sizes 640 608 576 544 512
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from accuracy import stock_int8
from observers import CONFIG, metric_of
from rich.console import Console
from rich.table import Table

from qgate.engine.calibrate import preprocessed
from qgate.engine.distance import output_distances
from qgate.engine.evaluate import evaluate
from qgate.engine.figures import Comparison
from qgate.engine.gate import Gate
from qgate.engine.heldout import Part
from qgate.engine.progress import Silent, StepClock
from qgate.engine.quantize import choose_calibration, quantize
from qgate.engine.state import torch_state
from qgate.files import write_atomically
from qgate.resampled import decode, encode
from qgate.statistics import bootstrap_interval, resamples

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import torch

    from qgate.config.model import ModelConfig
    from qgate.engine.load import Inputs
    from qgate.protocols import Metric

FUSED = CONFIG.with_name("qgate-fused.toml")
SAMPLES = ("left over by calibration", "evaluation")
DROPS = {
    "drop": ("float32", "other"),
    "drop found": ("float32", "found"),
    "drop stock": ("float32", "stock"),
    "gain": ("found", "other"),
    "gain over stock": ("found", "stock"),
}


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
    found += [overall(name, found, gates["other"].config.qgate.confidence) for name in SAMPLES]
    show(found)
    if options.json:
        write_atomically(options.json, json.dumps(found, indent=2).encode())


def opened(gate: Gate, model: ModelConfig) -> tuple[Inputs, list[int]]:
    """Open one model by itself, and choose its calibration samples."""
    alone = replace(gate.config, models={model.name: model})
    inputs = Gate(alone, gate.registry, (model,), timing=False, update_blessed=False).inputs(model.name)
    return inputs, choose_calibration(model, gate.registry, inputs, gate.config.qgate.seed)


def rows(gates: Mapping[str, Gate], size: int) -> Iterator[dict[str, Any]]:
    """Give the figures at one image size, on what calibration left over and on the evaluation samples."""
    models = {arm: sized(gate.models[0], size) for arm, gate in gates.items()}
    gate = gates["other"]
    inputs, chosen = opened(gate, models["other"])
    left = sorted(set(range(len(inputs.calibration))).difference(chosen))
    arms = {arm: _int8(gate, model, inputs, chosen) for arm, model in models.items()}
    arms["stock"] = _stock(inputs, chosen)
    for name, data in zip(SAMPLES, (Part(inputs.calibration, left), inputs.evaluation), strict=True):
        yield {"size": size, "samples": name, **_compare(gate, inputs, arms, data)}


def sized(model: ModelConfig, size: int) -> ModelConfig:
    """Give a model for square images of a size."""
    return replace(model, name="model", options=replace(model.options, image_size=size))


def _int8(gate: Gate, model: ModelConfig, inputs: Inputs, chosen: list[int]) -> torch.nn.Module:
    reference, _ = quantize(model, gate.registry, inputs, chosen, StepClock(Silent()))
    reference.meta["byte_scale"] = inputs.loaded.byte_scale  # as an artifact gives it
    backend = gate.registry.backends.get(model.quantization.backend)()
    lowered: torch.nn.Module = backend.lower(reference, inputs.loaded.example_inputs)
    return lowered


def _stock(inputs: Inputs, chosen: list[int]) -> torch.nn.Module:
    samples = [batch for (batch,) in preprocessed(inputs.loaded, inputs.calibration, chosen)]
    return stock_int8(inputs.loaded.module, samples, samples[0])


def _compare(gate: Gate, inputs: Inputs, int8: Mapping[str, torch.nn.Module], data: Any) -> dict[str, Any]:
    name, settings, loaded = metric_of(gate), gate.config.qgate, inputs.loaded
    arms = {"float32": loaded.module, **int8}
    metrics = {arm: {name: gate.registry.metrics.get(name)(loaded.class_names)} for arm in arms}
    evaluate(loaded, arms, data, metrics, Silent())
    drops = {
        said: Comparison(*(metrics[arm][name] for arm in pair), len(data), settings.confidence, settings.seed).figures()
        for said, pair in DROPS.items()
    }
    resampled = {arm: drops[said]["resampled"] for said, (_, arm) in DROPS.items() if said.startswith("drop")}
    resampled["float32"] = _resampled(metrics["float32"][name], len(data), settings.seed)
    found = {arm: distances(loaded, module, data) for arm, module in int8.items()}
    return {
        "count": len(data),
        **{said: [figures["drop"], *figures["drop_interval"]] for said, figures in drops.items()},
        "distance": float(np.mean(found["other"])),
        "distance found": float(np.mean(found["found"])),
        "distance stock": float(np.mean(found["stock"])),
        "closer on": int(np.sum(np.less(found["found"], found["other"]))),
        "resampled": {arm: decode(values).tolist() for arm, values in resampled.items()},
    }


def _resampled(metric: Metric, count: int, seed: int) -> str:
    return encode(np.concatenate([metric.compute(weights) for weights in resamples(count, seed)]))


def overall(name: str, found: list[dict[str, Any]], confidence: float) -> dict[str, Any]:
    """Give the means over all sizes of one kind of samples."""
    own = [row for row in found if row["samples"] == name]
    count, sizes = own[0]["count"], len(own)
    means = {arm: np.mean([row["resampled"][arm] for row in own], 0) for arm in ("float32", "other", "found", "stock")}
    drops: dict[str, list[float]] = {}
    for said, (one, other) in DROPS.items():
        mean = float(np.mean([row[said][0] for row in own]))
        interval = bootstrap_interval(means[one] - means[other], mean, count, confidence)
        drops[said] = [mean, *(interval or (float("nan"),) * 2)]
    named = ("distance", "distance found", "distance stock")
    means_of = {key: float(np.mean([row[key] for row in own])) for key in named}
    closer = sum(row["closer on"] for row in own)
    return {"size": f"{sizes} sizes", "samples": name, "count": count, **drops, **means_of, "closer on": closer}


def distances(loaded: Any, int8: torch.nn.Module, data: Any) -> list[float]:
    """Give int8's distance from `loaded` on each sample; NaN where the loader has no loss for it."""
    return output_distances(loaded, int8, data, loaded.distillation_loss) if loaded.distillation_loss else [np.nan]


def show(found: list[dict[str, Any]]) -> None:
    """Print a table for each kind of samples."""
    console = Console()
    for name in SAMPLES:
        own = [row for row in found if row["samples"] == name]
        table = Table(title=f"{own[0]['count']} images: {name}", box=None, title_justify="left")
        for heading in ("size", "drop: stock", "other", "found", "gain over other", "distance", "closer on"):
            table.add_column(heading, justify="right")
        for row in own:
            drops = [f"{row[key][0]:+.4f}" for key in ("drop stock", "drop", "drop found")]
            gain = "{:+.4f} ({:+.4f}, {:+.4f})".format(*row["gain"])
            apart = f"{row['distance']:.4f} {row['distance found']:.4f}"
            table.add_row(str(row["size"]), *drops, gain, apart, str(row["closer on"]))
        console.print(table)


if __name__ == "__main__":
    main()
