"""The bundled digits network with what makes post-training quantization fail planted in it.

In front of each convolution but the first stands a depth-wise one that multiplies four channels by a power of two, and
the weights that read these channels are divided by it. In float32 nothing changes, to the bit. In int8 four channels
take the range that the others need, and with one scale a weight the divided ones vanish.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from qgate_yolov5.blocks import Conv
from qgate_yolov5.loader import YoloV5Loader, YoloV5Options

if TYPE_CHECKING:
    from qgate import LoadedModel

DIGITS = Path(__file__).parents[1] / "examples" / "digits"
IMAGE_SIZE = 192
NUM_OUTLIERS = 4
FACTOR = 16.0
PER_TENSOR = 'weight = { observer = "per_tensor_minmax" }\nbias_correction = false\n'
_COLOURS = 3

CONFIG = f"""
schema_version = 1

[models.digits]
loader  = "factory"
factory = "outlier_digits:load"

[models.digits.data]
format      = "coco"
calibration = {{ images = "{DIGITS}/data/train", annotations = "{DIGITS}/data/train.json", num_samples = 64 }}
evaluation  = {{ images = "{DIGITS}/data/val", annotations = "{DIGITS}/data/val.json" }}
train       = {{ images = "{DIGITS}/data/train", annotations = "{DIGITS}/data/train.json" }}

[models.digits.thresholds.map]
max_drop = 0.02

[models.digits.quantization]
backend       = "fbgemm"
ignored_scope = ["model.24.*"] # as in the example
"""


def config_text(recipe: str = PER_TENSOR) -> str:
    """Give a `qgate.toml` for the network; `recipe` goes on in `[models.digits.quantization]`, by which it ends."""
    return CONFIG + recipe


def load() -> LoadedModel:
    """Load the network with its outliers; `[models.digits] factory` names this function."""
    loaded = YoloV5Loader().load(YoloV5Options(DIGITS / "digits.pt", IMAGE_SIZE))
    plant(loaded.module)
    return replace(loaded, source_sha256=None)


def plant(network: nn.Module) -> None:
    """Give every convolution of the network that reads features its outlier channels, in place."""
    for block in network.modules():
        if isinstance(block, Conv) and isinstance(block.conv, nn.Conv2d) and block.conv.in_channels > _COLOURS:
            block.conv = _with_outliers(block.conv)


@torch.no_grad()
def _with_outliers(conv: nn.Conv2d) -> nn.Sequential:
    """Put a depth-wise convolution before `conv`, which takes back what that does; a power of two loses nothing."""
    channels = conv.in_channels
    gains = torch.ones(channels)
    gains[:: channels // NUM_OUTLIERS] = FACTOR
    spread = nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False)
    spread.weight.zero_()
    spread.weight[:, 0, 1, 1] = gains
    conv.weight.div_(gains[:, None, None])
    return nn.Sequential(spread, conv)
