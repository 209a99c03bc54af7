"""Measure a gate over generated images, in one process and on workers of Ray: throughput, and the driver's memory.

Images are 64x64 and made as they are read, so what the driver holds is what qgate holds. The network is tiny and its
64 detections an image are of no use; mAP, mAP at 0.5 and mean IoU of both arms are computed all the same. Each gate is
a process of its own, whose memory is sampled: its own (RssAnon), without files that it has mapped, at its highest of
all, and from when the arms are judged.

    python benchmarks/scale.py --output scale.json

Linux only. Exits with 1 where a result is not that of the one process, to the last bit.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import ray
from rich.console import Console
from rich.table import Table

from qgate.files import write_atomically

FACTORY = """
import numpy as np
import torch
from torch import nn

import qgate
from qgate_detection.boxes import Detections, Targets

CLASSES = ("disc", "square", "cross", "bar")
SIDE, CELLS = 64, 8


def net():
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 16, 3, 2, 1), nn.ReLU(), nn.Conv2d(16, 32, 3, 2, 1), nn.ReLU(), nn.Conv2d(32, 32, 3, 2, 1)]
    module = nn.Sequential(*layers, nn.ReLU(), nn.Conv2d(32, 4 + len(CLASSES), 1)).eval()
    return qgate.LoadedModel(module, (torch.rand(1, 3, SIDE, SIDE),), preprocess, postprocess, CLASSES)


def preprocess(image):
    return (torch.from_numpy(image).permute(2, 0, 1).float().div(255).unsqueeze(0),), None


def postprocess(output, _):
    cells = output[0].flatten(1).T.double().numpy()
    y, x = np.divmod(np.arange(CELLS * CELLS), CELLS)
    centre = np.stack([x, y], 1) * CELLS + 4 + 40 * cells[:, :2]
    size = 12 + 40 * np.abs(cells[:, 2:4])
    scores = 1 / (1 + np.exp(-cells[:, 4:].max(1)))
    boxes = np.concatenate([centre - size / 2, centre + size / 2], 1)
    return Detections(boxes.astype(np.float32), scores.astype(np.float32), cells[:, 4:].argmax(1))


class Images:
    def __init__(self, count):
        self.count = count

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        if index >= self.count:
            raise IndexError(index)
        rng = np.random.default_rng(index)
        image = rng.integers(0, 80, (SIDE, SIDE, 3), dtype=np.uint8)
        corners = rng.integers(0, SIDE - 20, (3, 2))
        sizes = rng.integers(8, 20, (3, 2))
        for (left, top), (width, height) in zip(corners, sizes):
            image[top : top + height, left : left + width] = rng.integers(120, 255, 3)
        boxes = np.concatenate([corners, corners + sizes], 1).astype(np.float64)
        targets = Targets(boxes, rng.integers(0, 4, 3), np.zeros(3, dtype=bool), sizes.prod(1).astype(np.float64))
        return qgate.Sample(str(index), image, targets)


def calibration():
    return Images(32)


def evaluation():
    return Images(NUM_IMAGES)


NUM_IMAGES = %d
"""

CONFIG = """
schema_version = 1

[qgate]
cache_bytes = 0
%s
[models.tiny]
loader = "factory"
factory = "generated:net"

[models.tiny.data]
format = "factory"
calibration = { factory = "generated:calibration" }
evaluation = { factory = "generated:evaluation" }

[models.tiny.thresholds.map]
max_drop = 1.0

[models.tiny.thresholds.map50]
max_drop = 1.0

[models.tiny.thresholds.iou]
max_drop = 1.0
"""
RAY = '[qgate.executor]\nname = "ray"\n'
SECONDS = 0.02  # between two looks at the memory
MEGABYTE = 2**20


def main() -> int:
    """Measure, print a table; 1 where results differ."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, nargs="+", default=[1000, 10_000])
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1, 2], help="0 is this process alone")
    parser.add_argument("--output", type=Path, metavar="FILE")
    options = parser.parse_args()
    os.environ.update(RAY_USAGE_STATS_ENABLED="0", RAY_AUTH_MODE="disabled")
    found = [figures for workers in options.workers for figures in on_workers(workers, options.images)]
    show(found)
    if options.output:
        plain = [{key: value for key, value in figures.items() if key != "metrics"} for figures in found]
        write_atomically(options.output, (json.dumps(plain, indent=2) + "\n").encode())
    return int(any(one["metrics"] != other["metrics"] for one in found for other in found if alike(one, other)))


def alike(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Say whether two gates judged the same images."""
    return bool(one["images"] == other["images"])


def on_workers(workers: int, counts: list[int]) -> list[dict[str, Any]]:
    """Measure gates on a cluster of so many workers."""
    if not workers:
        return [measured(count, workers, "") for count in counts]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        memory = 200 * MEGABYTE
        cluster = ray.init(
            "local", num_cpus=workers, include_dashboard=False, object_store_memory=memory, log_to_driver=False
        )
    os.environ["RAY_ADDRESS"] = cluster.address_info["gcs_address"]  # not that of another cluster on this machine
    try:
        return [measured(count, workers, RAY) for count in counts]
    finally:
        del os.environ["RAY_ADDRESS"]
        ray.shutdown()


def measured(count: int, workers: int, executor: str) -> dict[str, Any]:
    """Run one gate in a process of its own."""
    with tempfile.TemporaryDirectory(prefix="qgate-scale-") as folder:
        Path(folder, "generated.py").write_text(FACTORY % count, encoding="utf-8")
        Path(folder, "qgate.toml").write_text(CONFIG % executor, encoding="utf-8")
        peaks = {"RssAnon": 0.0, "VmRSS": 0.0}
        command = [sys.executable, "-m", "qgate", "check", "--no-timing"]
        log = Path(folder, "log")
        with log.open("wb") as stream, subprocess.Popen(command, cwd=folder, stdout=stream, stderr=stream) as process:  # noqa: S603
            while process.poll() is None:
                memory = memory_of(process.pid)
                if b"collapse" in log.read_bytes():  # what comes behind it is evaluation and bootstrap
                    memory["judging"] = memory.get("RssAnon", 0.0)
                peaks.update({key: max(peaks.get(key, 0.0), value) for key, value in memory.items()})
                time.sleep(SECONDS)
        assert process.returncode == 0, log.read_text(encoding="utf-8")
        result = json.loads(Path(folder, ".qgate", "results.json").read_text(encoding="utf-8"))["models"]["tiny"]
    seconds = result["seconds"]
    print(f"{count} images, {workers} workers: {seconds}, {peaks}", file=sys.stderr, flush=True)
    return {
        "images": count,
        "workers": workers,
        "images_per_second": count / seconds["evaluate"],
        "seconds": seconds,
        "peak_anonymous_mb": peaks["RssAnon"] / MEGABYTE,
        "peak_judging_mb": peaks["judging"] / MEGABYTE,
        "peak_resident_mb": peaks["VmRSS"] / MEGABYTE,
        "metrics": result["metrics"],
    }


def memory_of(process: int) -> dict[str, float]:
    """Give a process's resident memory, and the part of it that is its own, in bytes; nothing once it has ended."""
    try:
        status = Path(f"/proc/{process}/status").read_text(encoding="utf-8")
    except OSError:
        return {}
    return {
        key: 1024 * float(value) for key, value in re.findall(r"^(RssAnon|VmRSS):\s+(\d+) kB", status, re.MULTILINE)
    }


def show(found: list[dict[str, Any]]) -> None:
    """Print a table."""
    columns = ("images", "workers", "images/s", "evaluate, s", "metrics, s", "own, MB", "judging, MB", "resident, MB")
    table = Table(*columns, box=None)
    for each in found:
        seconds, rate = each["seconds"], f"{each['images_per_second']:.0f}"
        memory = (f"{each[key]:.0f}" for key in ("peak_anonymous_mb", "peak_judging_mb", "peak_resident_mb"))
        times = (f"{seconds[key]:.1f}" for key in ("evaluate", "metrics"))
        table.add_row(str(each["images"]), str(each["workers"] or "local"), rate, *times, *memory)
    Console(width=110).print(table)


if __name__ == "__main__":
    sys.exit(main())
