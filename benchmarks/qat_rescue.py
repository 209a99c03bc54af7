"""Judge a network that post-training quantization spoils: the bundled digits with outlier channels planted in it.

The last recipe trains, for four minutes.

    python benchmarks/qat_rescue.py --json qat_rescue.json

Float32 is that of `examples/digits`, to the bit; `tests/outlier_digits.py` says what is planted, and has the
`qgate.toml`. Prints what int8 loses by each recipe, and whether the limit of 0.02 holds.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from qgate.engine.gate import Gate
from qgate.files import write_atomically

if TYPE_CHECKING:
    from qgate.results import ModelResult

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from outlier_digits import PER_TENSOR, config_text

# Maps along the way tell each stage what it should give; without them 80 epochs come to no more.
TRAINING = """approach = "qat"
[models.digits.quantization.training]
epochs = 40
batch_size = 4
learning_rate = 0.002
observer_epochs = 30
feature_maps = ["model.[1-9]", "model.1?", "model.2[0-3]"]
"""
RECIPES = {
    "ptq, a scale a weight": PER_TENSOR,
    "ptq, a scale a channel": "",
    "ptq, equalized": f"{PER_TENSOR}equalization = true\n",
    "qat, a scale a weight": PER_TENSOR + TRAINING,
}


def main() -> None:
    """Judge every recipe, print a table, and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", action="append", choices=RECIPES, help="repeatable; without it: all")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    found = {name: figures(judge(RECIPES[name])) for name in options.recipe or RECIPES}
    show(found)
    if options.json:
        write_atomically(options.json, json.dumps(found, indent=2).encode())


def judge(recipe: str) -> ModelResult:
    """Run the gate with one recipe."""
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder, "qgate.toml")
        config.write_text(config_text(recipe), encoding="utf-8")
        return Gate.open(config).run("digits")


def figures(result: ModelResult) -> dict[str, Any]:
    """Give what is shown of a result."""
    (verdict,) = result.verdicts
    return {
        **{key: result.metrics["map"][key] for key in ("baseline", "candidate", "drop", "drop_interval")},
        "status": verdict.status,
        "seconds": sum(result.seconds.get(step, 0.0) for step in ("quantize", "calibrate", "correct", "train")),
    }


def show(found: dict[str, dict[str, Any]]) -> None:
    """Print the table."""
    table = Table("recipe", "float32", "int8", "drop", "max_drop = 0.02", "quantized in")
    for name, row in found.items():
        drop = f"{row['drop']:.4f} ({', '.join(f'{end:.4f}' for end in row['drop_interval'])})"
        measured = (f"{row[arm]:.4f}" for arm in ("baseline", "candidate"))
        table.add_row(name, *measured, drop, row["status"], f"{row['seconds']:.0f} s")
    Console().print(table)


if __name__ == "__main__":
    main()
