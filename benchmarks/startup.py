"""Time whole runs of plain `pytest` on one empty test, with qgate installed and with it blocked (`-p no:qgate`).

Runs are paired and their order alternates, so that a drift of the machine cancels; bytecode is compiled before.
Processor time is there for busy machines: waiting for a core is not in it.

    python benchmarks/startup.py --pairs 40 --output startup.json
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

WITH, WITHOUT = "with qgate", "without"
Times = dict[str, float]
FLAGS = {WITH: (), WITHOUT: ("-p", "no:qgate")}


def children_seconds() -> float:
    """Give the processor time of the processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def run(folder: Path, flags: tuple[str, ...]) -> Times:
    """Run pytest once."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *flags]
    wall, processor = time.perf_counter(), children_seconds()
    subprocess.run(command, cwd=folder, stdout=subprocess.DEVNULL, check=True)  # noqa: S603  # our own interpreter
    return {"wall": time.perf_counter() - wall, "processor": children_seconds() - processor}


def measure(pairs: int) -> list[dict[str, Times]]:
    """Time `pairs` of runs, after one of each that is not counted."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "test_nothing.py").write_text("def test_nothing():\n    pass\n", encoding="utf-8")
        rows = []
        for index in range(pairs + 1):
            order = (WITH, WITHOUT) if index % 2 else (WITHOUT, WITH)
            rows.append({arm: run(folder, FLAGS[arm]) for arm in order})
    return rows[1:]


def summarize(rows: list[dict[str, Times]], clock: str) -> dict[str, float]:
    """Give medians in milliseconds, and the standard error of the median of the paired differences."""
    differences = [1e3 * (row[WITH][clock] - row[WITHOUT][clock]) for row in rows]
    low, _, high = statistics.quantiles(differences, n=4)
    return {
        **{arm: 1e3 * statistics.median(row[arm][clock] for row in rows) for arm in FLAGS},
        "difference": statistics.median(differences),
        "standard error": 0.93 * (high - low) / len(rows) ** 0.5,  # of a median, by the quartiles of a normal
    }


def main() -> None:
    """Measure, print a table, and write JSON where it is wanted."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=40)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    rows = measure(options.pairs)
    figures = {clock: summarize(rows, clock) for clock in ("wall", "processor")}
    print(" ".join(f"{heading:>14}" for heading in ("ms", *figures["wall"])))
    for clock, values in figures.items():
        print(" ".join((f"{clock:>14}", *(f"{value:14.1f}" for value in values.values()))))
    if options.output:
        document = {"python": platform.python_version(), "pairs": options.pairs, "milliseconds": figures}
        options.output.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
