"""The fallback on the bundled example, whose last convolutions cost 4 points of mAP in int8."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from qgate.cli import main

if TYPE_CHECKING:
    import pytest

DIGITS = Path(__file__).parents[2] / "examples" / "digits"
CONFIG = f"""
schema_version = 1

[models.digits]
loader = "yolov5"
weights = "{DIGITS}/digits.pt"
image_size = 192

[models.digits.data]
format = "coco"
calibration = {{ images = "{DIGITS}/data/train", annotations = "{DIGITS}/data/train.json", num_samples = 32 }}
evaluation = {{ images = "{DIGITS}/data/val", annotations = "{DIGITS}/data/val.json" }}

[models.digits.quantization]
backend = "onednn"
activation = {{ observer = "minmax" }}
bias_correction = false

[models.digits.quantization.fallback]
max_layers = 3

[models.digits.thresholds.map]
max_drop = 0.03

[models.digits.thresholds.size_reduction]
lower_bound = 0.6
"""


def test_the_last_convolutions_are_found_and_the_limit_holds(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "qgate.toml"
    config.write_text(CONFIG, encoding="utf-8")

    code = main(["check", "--config", str(config), "--json"])

    found = json.loads(capsys.readouterr().out)["models"]["digits"]
    kept = found["quantization"]["fallback"]["layers"]
    assert code == 0, found["verdicts"]
    assert 1 <= len(kept) <= 3
    assert {item["layer"] for item in kept} <= {f"model.24.m.{level}" for level in range(3)}
    assert found["quantization"]["ignored_scope"] == [item["layer"] for item in kept]
