"""Compare float32 and int8 of one network in torch, ONNX Runtime and OpenVINO: latency and accuracy.

All forms run in one process, in rounds: each form in turn, one pass that is not timed, so that caches and thread pools
are its own again, and one that is. Medians are over undisturbed passes, ratios over rounds in which both passes were.
Where other processes left too few of those, a figure is marked with ~: it is of all rounds, at one thread of their time
on the core. Each int8 form is calibrated on the same samples; each form is judged once, by the same metric, at the
image size of the configuration.

    pip install '.[bench]'
    QGATE_ASSETS=... python benchmarks/runtimes.py --threads 1 --size 640 --batch 1 --output runtimes.json
"""

from __future__ import annotations

import argparse
import itertools
import json
import logging
import sys
import tempfile
import threading
import time
import warnings
from dataclasses import asdict, dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import cv2
import numpy as np
import torch
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from runtime_forms import FORMS, FUSED, PEERS, TORCH_FLOATS, Form, Network, Setting

from qgate.engine.evaluate import compares_with_float32, evaluate, read_sample
from qgate.engine.gate import Gate
from qgate.engine.load import open_inputs
from qgate.engine.progress import Silent
from qgate.engine.quantize import choose_calibration
from qgate.engine.speedup import MIN_ROUNDS
from qgate.engine.state import torch_state
from qgate.engine.stopwatch import Pass, Stopwatch
from qgate.environment import describe_environment
from qgate.errors import QGateError
from qgate.files import write_atomically
from qgate.statistics import median_ratio_interval

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

ROOT = Path(__file__).parents[1]
PACKAGES = ("torch", "torchao", "onnx", "onnxruntime", "openvino", "nncf")
SETTLING_PASSES = 3
MAX_ROUNDS = 200
CONFIDENCE = 0.95

Accuracy = dict[str, dict[str, float]]  # form, metric


class Timed(NamedTuple):
    """One timed pass, and the seconds that all threads of the process were running in it, added up."""

    run: Pass
    on_cores: float


@dataclass(frozen=True)
class Ready:
    """A form that was built, what it is fed, and its passes."""

    name: str
    form: Form
    module: torch.nn.Module
    images: torch.Tensor
    passes: list[Timed]


@dataclass(frozen=True)
class Ratio:
    """How many times as fast one form is as another; `quiet` says that undisturbed rounds were enough."""

    value: float
    interval: tuple[float, float] | None
    quiet: bool


@dataclass(frozen=True)
class Report:
    """What was found at one setting."""

    setting: Setting
    rounds: int
    baseline: str
    forms: dict[str, dict[str, Any]]
    against_peers: dict[str, dict[str, Ratio]]
    missing: dict[str, str]


def main() -> None:
    """Time and judge every form at every setting; print a table for each, and write what there is so far."""
    options = parsed()
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    absent = [package for package in PACKAGES if find_spec(package) is None]
    if absent:
        print(f"not installed: {', '.join(absent)}; pip install '.[bench]' gives all that is compared", file=sys.stderr)
    reports = []
    with tempfile.TemporaryDirectory() as folder:
        try:
            network, seed = open_network(options.config, Path(folder))
            for found, accuracy in run_all(network, settings_of(options, network), seed, options):
                show(found, accuracy)
                reports.append(found)
                if options.output:
                    save(options.output, reports, accuracy)
        except QGateError as error:
            sys.exit(f"runtimes.py: {error}")


def save(path: Path, reports: list[Report], accuracy: Accuracy) -> None:
    """Write all figures as JSON."""
    threads = max(found.setting.threads for found in reports)
    packages = {package: version(package) for package in PACKAGES if find_spec(package)}
    document = {
        "environment": {**describe_environment(threads, ROOT), "packages": packages},
        "accuracy": accuracy,
        "settings": [asdict(found) for found in reports],
    }
    write_atomically(path, (json.dumps(document, indent=2) + "\n").encode())


def parsed() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--size", type=int, nargs="+", default=[640, 320], help="side of the square images, in pixels")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--config", type=Path, default=ROOT / "examples" / "yolov5n-coco" / "qgate.toml")
    parser.add_argument("--max-seconds", type=float, default=120.0, help="of timing, for each setting")
    parser.add_argument(
        "--forms", nargs="+", default=[""], help="only those whose names hold one of these, and torch's float32"
    )
    parser.add_argument("--no-accuracy", action="store_true")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write all figures there, as JSON")
    return parser.parse_args()


def open_network(path: Path, folder: Path) -> tuple[Network, int]:
    """Open the first model of a configuration, choose and read its calibration samples; also give its seed."""
    gate = Gate.open(path)
    config, seed = gate.models[0], gate.config.qgate.seed
    inputs = open_inputs(config, gate.registry)
    chosen = choose_calibration(config, gate.registry, inputs, seed)
    read = (read_sample(inputs.calibration, index).input for index in chosen)
    samples = tuple(inputs.loaded.preprocess(sample)[0][0] for sample in read)
    return Network(config, gate.registry, inputs, chosen, samples, folder), seed


def settings_of(options: argparse.Namespace, network: Network) -> list[Setting]:
    """List the settings, first the one at which accuracy is measured where it is among them."""
    settings = [Setting(*values) for values in itertools.product(options.threads, options.size, options.batch)]
    own = Setting(options.threads[0], network.samples[0].shape[-1], 1)
    return sorted(settings, key=lambda setting: setting != own)


def run_all(
    network: Network, settings: list[Setting], seed: int, options: argparse.Namespace
) -> Iterator[tuple[Report, Accuracy]]:
    """Measure accuracy once, at the first thread count, and every setting."""
    accuracy: Accuracy = {}
    own = Setting(options.threads[0], network.samples[0].shape[-1], 1)
    for setting in settings if options.no_accuracy or own in settings else [own, *settings]:
        cv2.setNumThreads(setting.threads)
        with torch_state(seed=seed, num_threads=setting.threads):
            ready, missing = build_all(network, setting, chosen(options.forms))
            with torch.compiler.set_stance("fail_on_recompile"):  # what is compiled anew is another form
                if setting == own and not options.no_accuracy:
                    accuracy = measure_accuracy(network, ready)
                if setting in settings:
                    rounds = time_all(ready, options.max_seconds)
                    yield report(setting, ready, missing, rounds), accuracy


def build_all(network: Network, setting: Setting, forms: dict[str, Form]) -> tuple[list[Ready], dict[str, str]]:
    """Build every form that can run here and let it settle; say of the others why they cannot."""
    ready, missing = [], {}
    for name, form in forms.items():
        print(f"{setting}: building {name}", file=sys.stderr)
        try:
            ready.append(build(network, setting, name, form))
        except ModuleNotFoundError as error:
            missing[name] = f"{error.name} is not installed"
        except Exception as error:  # noqa: BLE001  # a peer may raise anything; the others are compared all the same
            lines = str(error).strip().splitlines() or [type(error).__name__]
            missing[name] = lines[0][:160]
    return ready, missing


def chosen(parts: list[str]) -> dict[str, Form]:
    """Give the forms whose names hold one of `parts`; float32 of torch, the baseline, is always among them."""
    return {name: form for name, form in FORMS.items() if name in TORCH_FLOATS or any(part in name for part in parts)}


def build(network: Network, setting: Setting, name: str, form: Form) -> Ready:
    """Build one form, and run it until its first passes, which prepare much, are over."""
    images = form.feed(network, network.images(setting))
    with torch.no_grad():
        module = form.build(network, setting)
    with torch.inference_mode():
        for _ in range(SETTLING_PASSES):
            module(images.clone())  # a network may change its input in place
    return Ready(name, form, module, images, [])


def time_all(ready: list[Ready], max_seconds: float) -> int:
    """Run rounds until the time is up, at least as many as an interval takes; give their number."""
    stopwatch = Stopwatch()
    end = stopwatch.now() + max_seconds
    rounds = 0
    while rounds < MIN_ROUNDS or (rounds < MAX_ROUNDS and stopwatch.now() < end):
        for one in reversed(ready) if rounds % 2 else ready:
            one.passes.append(timed_pass(one, stopwatch))
        rounds += 1
    return rounds


class Metered(torch.nn.Module):
    """A form that notes how long all threads of the process were running in its last pass, added up."""

    def __init__(self, module: torch.nn.Module) -> None:
        super().__init__()
        self.module, self.on_cores = module, 0.0

    def forward(self, images: torch.Tensor) -> None:
        """Run one batch."""
        begin = time.process_time()
        self.module(images)
        self.on_cores = time.process_time() - begin


def timed_pass(one: Ready, stopwatch: Stopwatch) -> Timed:
    """Run a form twice, and keep the time of the second pass."""
    metered = Metered(one.module)
    with torch.inference_mode():
        stopwatch.run(metered, (one.images,))
        return Timed(stopwatch.run(metered, (one.images,)), metered.on_cores)


class Arm(torch.nn.Module):
    """A form as `evaluate` calls it: from several threads, one at a time, on float32 images, its output its own."""

    def __init__(self, network: Network, one: Ready) -> None:
        super().__init__()
        self.network, self.one, self.lock = network, one, threading.Lock()

    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        """Run one batch."""
        with self.lock:
            return [value.clone() for value in self.one.module(self.one.form.feed(self.network, images))]


def measure_accuracy(network: Network, ready: list[Ready]) -> Accuracy:
    """Give every form's metrics, those of the configuration's thresholds that compare with targets."""
    print("measuring accuracy", file=sys.stderr)
    loaded, evaluation = network.inputs.loaded, network.inputs.evaluation
    known = [
        network.registry.metrics.get(name) for name in network.config.thresholds if name in network.registry.metrics
    ]
    kinds = [kind for kind in known if not compares_with_float32(kind)]
    metrics = {one.name: {kind.name: kind(loaded.class_names) for kind in kinds} for one in ready}
    arms: dict[str, torch.nn.Module] = {one.name: Arm(network, one) for one in ready}
    evaluate(loaded, arms, evaluation, metrics, Silent())
    ones = np.ones((1, len(evaluation)))
    return {
        form: {name: float(metric.compute(ones)[0]) for name, metric in of_form.items()}
        for form, of_form in metrics.items()
    }


def seconds(*forms: Ready) -> tuple[NDArray[np.float64], bool]:
    """Give the seconds of rounds, shape (rounds, forms), of undisturbed rounds where there are enough of those.

    Else all rounds are given, at one thread the time on the core in each, and False.
    """
    one_thread = torch.get_num_threads() == 1
    rounds = [[timed.run for timed in passes] for passes in zip(*(one.passes for one in forms), strict=True)]
    quiet = [[run.seconds for run in passes] for passes in rounds if all(run.is_undisturbed for run in passes)]
    if len(quiet) >= MIN_ROUNDS:
        return np.array(quiet), True
    return np.array([[run.on_core if one_thread else run.seconds for run in passes] for passes in rounds]), False


def ratio(slow: Ready, fast: Ready) -> Ratio:
    """Say how many times as fast the second form is as the first."""
    if slow is fast:
        return Ratio(1.0, None, quiet=True)
    rounds, quiet = seconds(slow, fast)
    of_slow, of_fast = rounds.T
    interval = median_ratio_interval(of_slow, of_fast, CONFIDENCE, seed=0)
    return Ratio(float(np.median(of_slow / of_fast)), interval, quiet)


def report(setting: Setting, ready: list[Ready], missing: dict[str, str], rounds: int) -> Report:
    """Make figures of all passes at one setting."""
    medians = {one.name: float(np.median(seconds(one)[0])) for one in ready}
    by_name = {one.name: one for one in ready}
    baseline = by_name[min(TORCH_FLOATS.keys() & by_name.keys(), key=medians.__getitem__)]
    forms = {one.name: figures(one, baseline) for one in ready}
    against = {
        peer: {fused: ratio(by_name[peer], by_name[fused]) for fused in FUSED if fused in by_name}
        for peer in PEERS
        if peer in by_name
    }
    return Report(setting, rounds, baseline.name, forms, against, missing)


def figures(one: Ready, baseline: Ready) -> dict[str, Any]:
    """Give one form's figures; times are in milliseconds."""
    found, quiet = seconds(one)
    return {
        "median_ms": 1e3 * float(np.median(found)),
        "quiet": quiet,
        "undisturbed": sum(timed.run.is_undisturbed for timed in one.passes),
        "cores": float(np.median([busy_cores(timed) for timed in one.passes])),
        "ratio": ratio(baseline, one),
        "passes_ms": [[1e3 * timed.run.seconds, 1e3 * timed.run.lost] for timed in one.passes],
    }


def busy_cores(timed: Timed) -> float:
    """Say how many cores a pass kept busy, at one thread while that thread was running."""
    return timed.on_cores / (timed.run.on_core if torch.get_num_threads() == 1 else timed.run.seconds)


def show(found: Report, accuracy: Accuracy) -> None:
    """Print the table of one setting, and how many times as fast as each peer the fused forms are."""
    metric = next(iter(next(iter(accuracy.values()), {})), "")
    headings = ("form", "ms", "cores", f"x {found.baseline.removeprefix('torch ')}", metric)
    table = titled(f"{found.setting}; {found.rounds} rounds", *headings)
    for name in (*found.forms, *found.missing):
        score = accuracy.get(name, {}).get(metric)
        table.add_row(name, *cells(found, name), "" if score is None else f"{score:.4f}")
    Console().print(table)
    table = titled("times as fast as a peer", "peer", *FUSED)
    for peer, ratios in found.against_peers.items():
        table.add_row(peer, *(written(ratios[fused]) if fused in ratios else "" for fused in FUSED))
    Console().print(table)


def titled(title: str, *headings: str) -> Table:
    """Start a table whose columns but the first are flushed right."""
    table = Table(box=None, title=title, title_justify="left", title_style="bold", padding=(0, 2, 0, 0))
    table.add_column(headings[0], no_wrap=True)
    for heading in headings[1:]:
        table.add_column(heading, justify="right")
    return table


def cells(found: Report, name: str) -> Iterator[str]:
    """Write milliseconds, busy cores and ratio of a form, or why it is not there."""
    if name in found.missing:
        yield from ("-", "-", escape(found.missing[name]))
        return
    figures = found.forms[name]
    yield f"{'' if figures['quiet'] else '~'}{figures['median_ms']:.1f}"
    yield f"{figures['cores']:.2f}"
    yield written(figures["ratio"])


def written(ratio: Ratio) -> str:
    """Write a ratio with its interval."""
    value = f"{'' if ratio.quiet else '~'}{ratio.value:.2f}"
    return value if ratio.interval is None else f"{value} [{ratio.interval[0]:.2f}, {ratio.interval[1]:.2f}]"


if __name__ == "__main__":
    main()
