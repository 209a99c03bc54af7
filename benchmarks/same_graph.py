"""Compare what a runtime computes with what torch computes of the same calibrated graph.

Each model of the configuration is quantized by its recipe; its reference graph is run by torch, and the file that ships
by the runtime. Both round where a value lies between two steps, not always alike. Differences are of the
configuration's first accuracy metric, positive where the runtime has less, with the intervals of a paired bootstrap;
distances are the loader's loss of the runtime's raw outputs, torch's and float32's being the target.

    pip install '.[onnx,openvino]'
    QGATE_ASSETS=... python benchmarks/same_graph.py --sizes 640 608 576 512

Exits with 1 where a mean over the sizes differs by more than the limit.
"""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from observers import metric_of
from rich.console import Console
from rich.table import Table
from unseen import distances, opened, sized

from qgate.engine.evaluate import evaluate
from qgate.engine.figures import Comparison
from qgate.engine.gate import Gate
from qgate.engine.progress import Silent, StepClock
from qgate.engine.quantize import quantize
from qgate.engine.state import torch_state

if TYPE_CHECKING:
    from qgate.config.model import ModelConfig

CONFIG = Path(__file__).parents[1] / "examples" / "yolov5n-coco" / "qgate-runtimes.toml"


def main() -> int:
    """Compare, print; 1 where a mean is beyond the limit."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, default=CONFIG)
    parser.add_argument("--sizes", type=int, nargs="+", default=[640])
    parser.add_argument("--limit", type=float, default=0.003, help="of the mean difference")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    gate = Gate.open(options.config)
    table = Table("model", "size", "torch", "runtime", "difference", "distances", box=None)
    means: dict[str, float] = {}
    with torch_state(seed=gate.config.qgate.seed, num_threads=1):
        for model in gate.models:
            if not hasattr(gate.registry.backends.get(model.quantization.backend), "exporter"):
                continue  # what ships runs in torch
            found = [compare(gate, model, size) for size in options.sizes]
            for row in found:
                table.add_row(model.name, *row["said"])
            means[model.name] = float(np.mean([row["difference"] for row in found]))
    Console().print(table)
    for name, mean in means.items():
        print(f"{name}: {mean:+.4f}, the mean of {len(options.sizes)} sizes")
    return int(max(map(abs, means.values()), default=0.0) > options.limit)


def compare(gate: Gate, model: ModelConfig, size: int) -> dict[str, Any]:
    """Quantize one model for one image size, and run its graph twice."""
    model, settings = sized(model, size), gate.config.qgate
    inputs, chosen = opened(gate, model)
    reference, _ = quantize(model, gate.registry, inputs, chosen, StepClock(Silent()))
    backend = gate.registry.backends.get(model.quantization.backend)()
    runtime = backend.lower(reference, inputs.loaded.example_inputs)
    name = metric_of(gate)
    arms = {"float32": reference, "int8": runtime}  # of a pair, the first is the baseline
    metrics = {arm: {name: gate.registry.metrics.get(name)(inputs.loaded.class_names)} for arm in arms}
    evaluate(inputs.loaded, arms, inputs.evaluation, metrics, Silent())
    pair = (metrics["float32"][name], metrics["int8"][name])
    figures = Comparison(*pair, len(inputs.evaluation), settings.confidence, settings.seed).figures()
    difference = figures["drop"]
    interval = "({:+.4f}, {:+.4f})".format(*figures["drop_interval"])
    baselines = (replace(inputs.loaded, module=reference), inputs.loaded)
    apart = [float(np.mean(distances(loaded, runtime, inputs.evaluation))) for loaded in baselines]
    values = (f"{figures['baseline']:.4f}", f"{figures['candidate']:.4f}", f"{difference:+.4f} {interval}")
    return {"difference": difference, "said": (str(size), *values, "{:.4f} {:.4f}".format(*apart))}


if __name__ == "__main__":
    sys.exit(main())
