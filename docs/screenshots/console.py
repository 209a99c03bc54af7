"""Draw the README's picture of the console report from a run's results: `python docs/screenshots/console.py`."""

from __future__ import annotations

import argparse
import io
import re
from pathlib import Path

from rich.console import CONSOLE_SVG_FORMAT, Console

from qgate.reporting.bars import UNICODE
from qgate.reporting.console import print_result
from qgate.results import load_results

WIDTH = 108
# rich's template loads its font from elsewhere; whoever looks at the picture has a monospaced one.
TEMPLATE = re.sub(r"@font-face \{\{.*?\}\}\s*", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)


def draw(results: Path) -> str:
    """Give the report of `results` as SVG."""
    console = Console(record=True, width=WIDTH, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    print_result(console, load_results(results), UNICODE)
    return console.export_svg(title="qgate report", code_format=TEMPLATE, unique_id="qgate")


def main() -> None:
    """Write the picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", type=Path, nargs="?", default=Path(".qgate/results.json"))
    parser.add_argument("-o", "--output", type=Path, default=Path("docs/images/console.svg"))
    options = parser.parse_args()
    options.output.write_text(draw(options.results), encoding="utf-8")


if __name__ == "__main__":
    main()
