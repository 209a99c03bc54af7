"""Compare the fused kernels with the reference graph that they stand for, layer by layer and as a whole.

Every kernel is given the reference graph's own bytes, so that no error is inherited; what it makes of them is compared
with the reference graph's bytes, which are reckoned in float32 on the same scales. Then both are evaluated as a whole.

    python benchmarks/fidelity.py --config examples/yolov5n-coco/qgate-fused.toml --samples 20

The gate must have run, with the backend `fused`: it is its artifact that is compared. Exits with 1 where a kernel is
more than one step off.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from qgate.engine.artifact import load_reference
from qgate.engine.evaluate import evaluate, read_sample
from qgate.engine.figures import Comparison
from qgate.engine.gate import Gate
from qgate.engine.load import open_inputs
from qgate.engine.progress import Silent
from qgate.files import write_atomically
from qgate.quantization.fused import FusedBackend
from qgate.quantization.prepare import quiet_torch_ao

if TYPE_CHECKING:
    from qgate.config.model import ModelConfig
    from qgate.engine.load import Inputs
    from qgate.plugins import Registry

Steps = dict[str, Counter[int]]
WORST = 8  # layers shown


class Recorder(torch.fx.Interpreter):
    """Runs a reference graph in float32, and keeps the bytes of what it quantizes by the value's name."""

    def __init__(self, graph: torch.fx.GraphModule) -> None:
        super().__init__(graph)
        self.bytes: dict[str, torch.Tensor] = {}

    def run_node(self, n: torch.fx.Node) -> Any:
        """Run one node."""
        result = super().run_node(n)
        if n.target is torch.quantize_per_tensor:
            self.bytes[n.all_input_nodes[0].name] = result.int_repr()
        return result


class Fed(torch.fx.Interpreter):
    """Runs a fused graph whose every kernel gets the reference graph's bytes, and counts the steps that it is off."""

    def __init__(self, lowered: torch.fx.GraphModule, wanted: dict[str, torch.Tensor], steps: Steps) -> None:
        super().__init__(lowered)
        self.wanted, self.steps = wanted, steps

    def run_node(self, n: torch.fx.Node) -> Any:
        """Run one node, and go on with what the reference graph has in its place."""
        result = super().run_node(n)
        name = n.meta.get("value")
        if name not in self.wanted or self.wanted[name].shape != result.shape:
            return result
        off, counts = (result.int() - self.wanted[name].int()).unique(return_counts=True)
        self.steps.setdefault(name, Counter()).update(dict(zip(off.tolist(), counts.tolist(), strict=True)))
        return result.copy_(self.wanted[name])  # the layout in memory is the kernel's


def main() -> int:
    """Compare, print; 1 where a kernel is more than a step off."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, default=Path("qgate.toml"))
    parser.add_argument("--samples", type=int, default=20, help="to compare kernels on")
    parser.add_argument("--output", type=Path, metavar="FILE")
    options = parser.parse_args()
    gate = Gate.open(options.config)
    model = gate.models[0]
    inputs = open_inputs(model, gate.registry)
    artifact = gate.config.qgate.artifacts / f"{model.name}.pt"
    steps = compare_kernels(inputs, artifact, options.samples)
    show_kernels(steps)
    metrics = compare_metrics(model, gate.registry, inputs, artifact)
    show_metrics(metrics)
    if options.output:
        document = {"steps": {name: dict(counts) for name, counts in steps.items()}, "metrics": metrics}
        write_atomically(options.output, (json.dumps(document, indent=2) + "\n").encode())
    return int(max(map(farthest, steps.values())) > 1)


def compare_kernels(inputs: Inputs, artifact: Path, samples: int) -> Steps:
    """Count, for every value that is quantized, by how many steps how many bytes are off."""
    steps: Steps = {}
    reference, lowered = load_reference(artifact), FusedBackend().lower_graph(load_reference(artifact))
    with torch.no_grad(), quiet_torch_ao():
        for index in range(samples):
            batch, _ = inputs.loaded.preprocess(read_sample(inputs.evaluation, index).input)
            recorder = Recorder(reference)
            recorder.run(*batch)
            Fed(lowered, recorder.bytes, steps).run(*batch)
    return steps


def compare_metrics(model: ModelConfig, registry: Registry, inputs: Inputs, artifact: Path) -> dict[str, Any]:
    """Give each metric of float32, of the reference graph and of the fused one, and the drop between the latter."""
    reference = load_reference(artifact)
    fused = FusedBackend().lower(load_reference(artifact), inputs.loaded.example_inputs)
    arms = {"float32": inputs.loaded.module, "reference": reference, "fused": fused}
    names = [name for name in model.thresholds if name in registry.metrics]
    found = {arm: {name: registry.metrics.get(name)(inputs.loaded.class_names) for name in names} for arm in arms}
    evaluate(inputs.loaded, arms, inputs.evaluation, found, Silent())
    samples = len(inputs.evaluation)
    ones = np.ones((1, samples))
    values = {name: {arm: float(found[arm][name].compute(ones)[0]) for arm in arms} for name in names}
    for name in names:
        pair = Comparison(found["reference"][name], found["fused"][name], samples, confidence=0.95, seed=0)
        values[name] |= {key: pair.figures()[key] for key in ("drop", "drop_interval")}
    return values


def farthest(counts: Counter[int]) -> int:
    """Give the greatest number of steps."""
    return max(map(abs, counts))


def show_kernels(steps: Steps) -> None:
    """Print the layers that are farthest off, and the sum of all."""
    table = Table("value", "bytes", "exact", "one step", "mean", "farthest", box=None)
    ranked = sorted(steps, key=lambda name: (-farthest(steps[name]), share_exact(steps[name])))
    for name in ranked[:WORST]:
        table.add_row(name, *cells(steps[name]))
    table.add_row(f"all {len(steps)}", *cells(sum(steps.values(), Counter())))
    Console(width=100).print(table)


def share_exact(counts: Counter[int]) -> float:
    """Give the share of bytes that are equal."""
    return counts[0] / counts.total()


def cells(counts: Counter[int]) -> tuple[str, ...]:
    """Say how many bytes there are, the shares that are equal or a step off, the mean and the farthest step."""
    total = counts.total()
    mean = sum(step * count for step, count in counts.items()) / total
    one = (counts[1] + counts[-1]) / total
    return str(total), f"{share_exact(counts):.2%}", f"{one:.2%}", f"{mean:+.4f}", str(farthest(counts))


def show_metrics(metrics: dict[str, Any]) -> None:
    """Print each arm's metrics."""
    table = Table("metric", "float32", "reference", "fused", "reference - fused", "95% interval", box=None)
    for name, values in metrics.items():
        low, high = values["drop_interval"]
        arms = (f"{values[arm]:.4f}" for arm in ("float32", "reference", "fused"))
        table.add_row(name, *arms, f"{values['drop']:+.4f}", f"{low:.4f} to {high:.4f}")
    Console(width=100).print(table)


if __name__ == "__main__":
    sys.exit(main())
