"""A network that post-training quantization spoils: float32 is the digits example's, int8 is far from it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import outlier_digits
import torch

from qgate.engine.gate import Gate
from qgate_yolov5.loader import YoloV5Loader, YoloV5Options

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_float32_is_the_same_to_the_bit() -> None:
    original = YoloV5Loader().load(YoloV5Options(outlier_digits.DIGITS / "digits.pt", outlier_digits.IMAGE_SIZE))
    images = torch.rand(2, 3, 192, 192, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        maps = zip(outlier_digits.load().module(images), original.module(images), strict=True)
        assert all(torch.equal(ours, theirs) for ours, theirs in maps)


def test_post_training_quantization_fails_badly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])
    config = tmp_path / "qgate.toml"
    config.write_text(outlier_digits.config_text(), encoding="utf-8")

    result = Gate.open(config).run("digits")

    figures = result.metrics["map"]
    assert not result.passed
    assert figures["baseline"] > 0.8
    assert figures["drop"] > 0.1
