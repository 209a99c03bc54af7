"""Count wrong verdicts of the gate where the truth is known, on a quiet machine and on a loaded one.

The digits example is gated again and again, each time on images drawn afresh. Its int8 arm is replaced, by a plugin, by
the float32 network itself (A/A: no drop, speedup 1), or by that network with noise on its weights (planted: a drop of
twice the limit, speedup 1). The noise is searched for in a pilot so that the drop is twice the half-width of its
interval; the drop is then measured on a large set, and the limit is half of it. Speed limits lie on either side of 1.
In half of the runs stress-ng keeps all cores busy.

    python benchmarks/wrong_verdicts.py --runs 50 --output wrong_verdicts.json

Exits with 1 where a verdict is wrong, or is an error; inconclusive ones are counted.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")
sys.path.insert(0, str(Path(__file__).parents[1] / "examples" / "digits"))

import numpy as np
import torch
from make_dataset import coco_document, encode
from rich.console import Console
from rich.table import Table
from scenes import draw_scene, source_digits

import qgate
from qgate.engine.evaluate import evaluate
from qgate.engine.figures import Comparison
from qgate.engine.gate import Gate
from qgate.engine.load import open_inputs
from qgate.engine.progress import Silent
from qgate.files import write_atomically
from qgate.quantization.backends import FbgemmBackend
from qgate.quantization.float_forms import float_forms
from qgate_detection.metrics import MeanAveragePrecision

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qgate.engine.load import Inputs
    from qgate.protocols import Metric
    from qgate.results import Verdict

DIGITS = Path(__file__).parents[1] / "examples" / "digits"
NUM_IMAGES = 192  # of an evaluation set, as in the example
PILOT_SETS = 5
SEARCH_STEPS = 6
MOST_NOISE = 0.01  # of a layer's weights' standard deviation: costs about 4 points of mAP
SPEED_LIMITS = (0.8, 0.9, 1.1, 1.25)  # the true speedup is 1; what a busy machine gives allows for 10% of contention
KINDS = ("A/A", "planted")
BACKENDS = {"A/A": "float32", "planted": "damaged"}
CONFIGURATION = """
schema_version = 1

[models.digits]
loader     = "yolov5"
weights    = {weights}
image_size = 192

[models.digits.data]
format      = "coco"
calibration = {{ images = {calibration}, num_samples = 2 }}
evaluation  = {{ images = "images", annotations = "annotations.json" }}

[models.digits.quantization]
backend    = "{backend}"
activation = {{ observer = "minmax" }}

[models.digits.timing]
max_seconds   = 12
baseline_form = "frozen"

[models.digits.thresholds.map]
max_drop = {max_drop}

[models.digits.thresholds.speedup]
lower_bound = {speed_limit}
"""


@dataclass(frozen=True)
class Planted:
    """What was planted: noise on weights, the drop of mAP that it makes, and an interval's half-width on NUM_IMAGES."""

    noise: float
    half_width: float
    drop: float

    @property
    def limit(self) -> float:
        """Give the limit of the drop, `max_drop`."""
        return self.drop / 2


@dataclass(frozen=True)
class Outcome:
    """One verdict, and whether it is `right`, `wrong`, `inconclusive` or an `error`."""

    seed: int
    kind: str
    loaded: bool
    limit: str
    truth: float
    measured: float | None
    interval: tuple[float, float] | None
    outcome: str
    message: str


class Arms:
    """A plugin whose backends run a float32 network in the place of int8."""

    def __init__(self, inputs: Inputs, noise: float) -> None:
        self.float32 = frozen(inputs, 0.0)
        self.damaged = frozen(inputs, noise)

    @qgate.hookimpl
    def qgate_register_backends(self) -> list[type[FbgemmBackend]]:
        """Register one backend an arm."""
        return [backend(name, getattr(self, name)) for name in BACKENDS.values()]


def backend(backend_name: str, network: torch.nn.Module) -> type[FbgemmBackend]:
    """Make a backend that runs `network`, whatever it is given."""

    class Replaced(FbgemmBackend):
        name = backend_name

        def is_available(self) -> str | None:
            return None

        def needs_reduced_range(self) -> bool:
            return False

        def lower(self, reference: Any, example_inputs: Any) -> torch.nn.Module:  # noqa: ARG002
            return network

    return Replaced


def frozen(inputs: Inputs, noise: float) -> torch.nn.Module:
    """Give the float32 network with noise on its convolutions' weights, in its fastest form."""
    network = copy.deepcopy(inputs.loaded.module)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for module in network.modules():
            if noise and isinstance(module, torch.nn.Conv2d):
                random = torch.randn(module.weight.shape, generator=generator)
                module.weight += noise * module.weight.std() * random
    return float_forms(network, inputs.loaded.example_inputs)["frozen"]


def main() -> int:
    """Plant, run, print a table; 1 where a verdict is wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=50, help="of each kind, half of them under load")
    parser.add_argument("--truth-images", type=int, default=5000, help="to measure the planted drop on")
    parser.add_argument("--output", type=Path, metavar="FILE")
    options = parser.parse_args()
    if not shutil.which("stress-ng"):
        sys.exit("wrong_verdicts.py: stress-ng is missing; it makes the load: install it (apt-get install stress-ng)")
    begin = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        pilots = [open_set(Path(folder, f"pilot{index}"), NUM_IMAGES, seed=index) for index in range(PILOT_SETS)]
        planted = plant(pilots, open_set(Path(folder, "truth"), options.truth_images, seed=PILOT_SETS))
        outcomes = run_all(Path(folder), planted, Arms(pilots[0], planted.noise), options.runs)
    seconds = time.perf_counter() - begin
    show(outcomes, planted, seconds)
    if options.output:
        document = {
            "planted": {**asdict(planted), "limit": planted.limit},
            "seconds": seconds,
            "verdicts": [asdict(outcome) for outcome in outcomes],
        }
        write_atomically(options.output, (json.dumps(document, indent=2) + "\n").encode())
    return int(any(outcome.outcome in {"wrong", "error"} for outcome in outcomes))


def plant(pilots: list[Inputs], many: Inputs) -> Planted:
    """Search for the noise whose drop is twice its interval's half-width, by bisection; measure its drop on `many`."""
    sound = frozen(pilots[0], 0.0)
    baselines = [evaluated(inputs, sound) for inputs in pilots]
    low, high = 0.0, MOST_NOISE
    half_width = 0.0
    for _ in range(SEARCH_STEPS):
        noise = (low + high) / 2
        network = frozen(pilots[0], noise)
        pairs = zip(pilots, baselines, strict=True)
        figures = [compared(baseline, evaluated(inputs, network)) for inputs, baseline in pairs]
        drop = fmean(found["drop"] for found in figures)
        half_width = fmean(np.subtract(*found["drop_interval"][::-1]) / 2 for found in figures)
        print(f"pilot: noise {noise:.4f}, drop {drop:.4f}, half-width {half_width:.4f}", flush=True)
        low, high = (low, noise) if drop > 2 * half_width else (noise, high)
    return Planted(noise, half_width, true_drop(many, noise))


def true_drop(inputs: Inputs, noise: float) -> float:
    """Measure the drop on all images of the evaluation set."""
    num_images = len(inputs.evaluation)
    metrics = [evaluated(inputs, frozen(inputs, amount)) for amount in (0.0, noise)]
    before, after = (float(metric.compute(np.ones((1, num_images)))[0]) for metric in metrics)
    print(f"truth: mAP {before:.4f} and {after:.4f} on {num_images} images, drop {before - after:.4f}", flush=True)
    return before - after


def evaluated(inputs: Inputs, network: torch.nn.Module) -> Metric:
    """Give mAP, updated with what a network predicts on the evaluation set."""
    metric = MeanAveragePrecision(inputs.loaded.class_names)
    torch.set_num_threads(1)
    evaluate(inputs.loaded, {"arm": network}, inputs.evaluation, {"arm": {"map": metric}}, Silent())
    return metric


def compared(baseline: Metric, candidate: Metric) -> dict[str, Any]:
    """Give the gate's own figures of the drop."""
    return Comparison(baseline, candidate, NUM_IMAGES, confidence=0.95, seed=0).figures()


def open_set(folder: Path, num_images: int, seed: int) -> Inputs:
    """Draw a set and open it as the gate does."""
    draw(folder, num_images, seed)
    gate = Gate.open(configure(folder, backend="fbgemm", max_drop=1.0, speed_limit=1.0))
    return open_inputs(gate.models[0], gate.registry)


def draw(folder: Path, num_images: int, seed: int) -> None:
    """Draw an evaluation set of the example's population."""
    rng, digits = np.random.default_rng([20261, seed]), source_digits("val")
    names = [f"{index:05}.jpg" for index in range(num_images)]
    scenes = [draw_scene(digits, rng) for _ in names]
    (folder / "images").mkdir(parents=True)
    for name, scene in zip(names, scenes, strict=True):
        (folder / "images" / name).write_bytes(encode(scene.image))
    (folder / "annotations.json").write_text(json.dumps(coco_document(names, scenes)), encoding="utf-8")


def configure(folder: Path, **settings: Any) -> Path:
    """Write a configuration for the set in `folder`."""
    paths = {"weights": DIGITS / "digits.pt", "calibration": DIGITS / "data" / "train"}
    path = folder / "qgate.toml"
    quoted = {name: json.dumps(str(value)) for name, value in paths.items()}
    path.write_text(CONFIGURATION.format(**quoted, **settings), encoding="utf-8")
    return path


def run_all(folder: Path, planted: Planted, arms: Arms, runs: int) -> list[Outcome]:
    """Run both kinds, every second run under load; speed limits alternate within each."""
    outcomes: list[Outcome] = []
    for index in range(runs):
        for kind in KINDS:
            seed = PILOT_SETS + 1 + len(KINDS) * index + KINDS.index(kind)
            draw(folder / str(seed), NUM_IMAGES, seed)
            settings = {"max_drop": planted.limit, "speed_limit": SPEED_LIMITS[index // 2 % len(SPEED_LIMITS)]}
            path = configure(folder / str(seed), backend=BACKENDS[kind], **settings)
            with stress() if index % 2 else contextlib.nullcontext():
                verdicts = Gate.open(path, plugins=[(arms, "wrong verdicts")]).run("digits").verdicts
            true_values = {"map": planted.drop if kind == "planted" else 0.0, "speedup": 1.0}
            found = [outcome(seed, kind, index % 2 == 1, item, true_values[item.metric]) for item in verdicts]
            print(f"run {seed - PILOT_SETS} of {len(KINDS) * runs}:", *(brief(item) for item in found), flush=True)
            outcomes += found
            shutil.rmtree(folder / str(seed))
    return outcomes


@contextlib.contextmanager
def stress() -> Iterator[None]:
    """Keep all cores busy with other processes. Raises `RuntimeError` where they did not last."""
    command = ["stress-ng", "--cpu", str(os.cpu_count()), "--timeout", "600", "--quiet"]
    with subprocess.Popen(command) as process:  # noqa: S603  # a constant command
        try:
            yield
            if process.poll() is not None:
                raise RuntimeError(f"stress-ng ended by itself, with exit code {process.returncode}")
        finally:
            process.terminate()


def outcome(seed: int, kind: str, loaded: bool, verdict: Verdict, truth: float) -> Outcome:
    """Hold a verdict against the truth."""
    is_floor = verdict.limit == "lower_bound"
    holds = truth >= verdict.limit_value if is_floor else truth <= verdict.limit_value
    decided = "right" if (verdict.status == "passed") == holds else "wrong"
    name = f"{verdict.metric}.{verdict.limit} = {verdict.limit_value:.4g}"
    outcome = verdict.status if verdict.status in {"inconclusive", "error"} else decided
    return Outcome(seed, kind, loaded, name, truth, verdict.measured, verdict.interval, outcome, verdict.message)


def brief(item: Outcome) -> str:
    """Say one outcome in short."""
    interval = "no interval" if item.interval is None else "{:.4f} to {:.4f}".format(*item.interval)
    return f"{item.kind}{' under load' if item.loaded else ''} {item.limit}: {item.outcome} ({interval});"


def show(outcomes: list[Outcome], planted: Planted, seconds: float) -> None:
    """Print how often each outcome came."""
    print(
        f"planted drop {planted.drop:.4f}, limit {planted.limit:.4f}, half-width in the pilot {planted.half_width:.4f}"
    )
    columns = ("right", "inconclusive", "wrong", "error")
    counts = Counter((item.kind, item.loaded, item.limit, item.outcome) for item in outcomes)
    table = Table("kind", "load", "limit", *columns, box=None)
    for kind, loaded, limit in sorted({key[:3] for key in counts}):
        values = (str(counts[kind, loaded, limit, column]) for column in columns)
        table.add_row(kind, "all cores" if loaded else "none", limit, *values)
    Console(width=100).print(table)
    print(f"{seconds:.0f} s")


if __name__ == "__main__":
    sys.exit(main())
