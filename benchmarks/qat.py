"""Train a model in int8, and tell what that regains of what the same recipe loses without training.

The gate of a configuration, whose paths must be absolute, is run from nothing, by one process or by several that
`torchrun` starts. What is shown is what it judged: the converted model, as reloaded.

    QGATE_ASSETS=... python benchmarks/qat.py --output qat.json
    QGATE_ASSETS=... python benchmarks/qat.py --processes 2
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from qgate.files import write_atomically

ROOT = Path(__file__).parents[1]
CONFIG = ROOT / "examples" / "yolov5n-coco" / "qgate-qat.toml"


def main() -> None:
    """Run every configuration, print a table, and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, action="append", help="repeatable; without it: the example yolov5n-coco")
    parser.add_argument("--processes", type=int, default=1, help="that train together")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write JSON")
    options = parser.parse_args()
    found = [row for path in options.config or [CONFIG] for row in measure(path, options.processes)]
    show(found)
    if options.output:
        write_atomically(options.output, json.dumps(found, indent=2).encode())


def measure(path: Path, processes: int) -> list[dict[str, Any]]:
    """Run the gate of a configuration, whose modules are beside it, and give a row for each metric of each model."""
    together = ["torch.distributed.run", "--standalone", "--nproc-per-node", str(processes), "-m"]
    command = [sys.executable, "-m", *(together if processes > 1 else []), "qgate", "check", "--json", "--no-timing"]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(path.resolve().parent), os.environ.get("PYTHONPATH", "")]),
    }
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, "qgate.toml")
        copy.write_text(path.read_text(encoding="utf-8"), encoding="utf-8")
        done = subprocess.run([*command, "--config", copy], env=environment, stdout=subprocess.PIPE, check=False)  # noqa: S603  # our own interpreter
    models = json.loads(done.stdout)["models"]
    return [row for name, model in models.items() for row in rows(name, model)]


def rows(name: str, model: dict[str, Any]) -> list[dict[str, Any]]:
    """Give what is shown of a model."""
    training = model["training"]
    return [
        {
            "model": name,
            "metric": metric,
            "float32": figures["baseline"],
            "ptq": figures["ptq"]["value"],
            "qat": figures["candidate"],
            "drop": figures["drop"],
            "drop_interval": figures["drop_interval"],
            "ptq_drop": figures["ptq"]["drop"],
            "gain": figures["ptq"]["gain"],
            "gain_interval": figures["ptq"]["gain_interval"],
            "processes": training["processes"],
            "minutes": training["seconds"] / 60,
            "validation": [epoch["validation_loss"] for epoch in training["curve"]],
        }
        for metric, figures in model["metrics"].items()
        if "ptq" in figures
    ]


def show(found: list[dict[str, Any]]) -> None:
    """Print the table."""
    table = Table("judged by", "float32", "ptq", "qat", "drop", "regained", "gain", "minutes")
    for row in found:
        regained = f"{row['gain'] / row['ptq_drop']:.0%}" if row["ptq_drop"] > 0 else "-"
        low, high = row["gain_interval"] or (float("nan"), float("nan"))
        values = (f"{row[key]:.4f}" for key in ("float32", "ptq", "qat", "drop"))
        gain = f"{row['gain']:+.4f}\n{low:+.4f} to {high:+.4f}"
        processes = f", {row['processes']} processes" if row["processes"] > 1 else ""
        name = f"{row['metric']} of {row['model']}{processes}"
        table.add_row(name, *values, regained, gain, f"{row['minutes']:.1f}")
    Console().print(table)


if __name__ == "__main__":
    main()
