"""Show that each limit of a gate can fail it alone: run `pytest --qgate` as it is, then with one limit out of reach.

    QGATE_ASSETS=... python benchmarks/single_limits.py --config examples/yolov5n-coco/qgate.toml

Prints exit codes and which test cases the JUnit file says failed; exits with 1 where one run is not as expected.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from pathlib import Path

from rich.console import Console
from rich.table import Table

OUT_OF_REACH = {"max_drop": "-1", "lower_bound": "1000"}
LIMIT = re.compile(r"^(max_drop|lower_bound)\s*=\s*([-\d.]+)", re.MULTILINE)


def main() -> int:
    """Run the gate once for each limit, and once as it is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, required=True)
    text = parser.parse_args().config.read_text()
    text = re.sub(r"max_seconds\s*=.*", "max_seconds = 60", text)
    table = Table("limit out of reach", "exit code", "failed in JUnit", box=None)
    sound = row(table, text, "none", 0)
    for found in LIMIT.finditer(text):
        metric = re.findall(r"thresholds\.(\w+)\]", text[: found.start()])[-1]
        changed = f"{text[: found.start(2)]}{OUT_OF_REACH[found[1]]}{text[found.end(2) :]}"
        sound &= row(table, changed, f"{metric}.{found[1]}", 1)
    Console(width=80).print(table)
    return int(not sound)


def row(table: Table, text: str, limit: str, expected: int) -> bool:
    """Run one variant; say whether it failed exactly as it should."""
    with tempfile.TemporaryDirectory() as folder:
        config, junit = Path(folder, "qgate.toml"), Path(folder, "junit.xml")
        config.write_text(text)
        command = [sys.executable, "-m", "pytest", "-q", "--qgate", f"--junitxml={junit}", "-p", "no:cacheprovider"]
        code = subprocess.run(command, cwd=folder, check=False, stdout=subprocess.DEVNULL).returncode  # noqa: S603
        cases = ET.parse(junit).iter("testcase")  # noqa: S314  # written by pytest a moment ago
        failed = [case.get("name", "") for case in cases if case.find("failure") is not None]
    table.add_row(limit, str(code), ", ".join(failed) or "none")
    return code == expected and failed == ([] if limit == "none" else [limit])


if __name__ == "__main__":
    sys.exit(main())
