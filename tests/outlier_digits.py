"""The bundled digits network with what makes post-training quantization fail planted in it.

In front of some convolutions stands a depth-wise one that multiplies a few channels by a power of two; the weights that
read these channels are divided by it. In float32 nothing changes, to the bit. In int8 a few channels take the range
that the others need, and with one scale a weight the divided ones vanish.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from qgate_yolov5.loader import YoloV5Loader, YoloV5Options

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qgate import LoadedModel

WEIGHTS = Path(__file__).parents[1] / "examples" / "digits" / "digits.pt"
IMAGE_SIZE = 192
PLANTED = ("model.1", "model.3", "model.5", "model.7")  # the backbone's convolutions of stride 2
NUM_OUTLIERS = 4
FACTOR = 32.0


def load() -> LoadedModel:
    """Load the network with outliers; for `loader = "factory"`."""
    loaded = YoloV5Loader().load(YoloV5Options(WEIGHTS, IMAGE_SIZE))
    plant(loaded.module, PLANTED)
    return replace(loaded, source_sha256=None)


def plant(network: nn.Module, names: Sequence[str], factor: float = FACTOR) -> None:
    """Give each block of `names`, which has a convolution `conv`, its outlier channels; in place."""
    for name in names:
        block = network.get_submodule(name)
        block.conv = _with_outliers(block.conv, factor)


@torch.no_grad()
def _with_outliers(conv: nn.Module, factor: float) -> nn.Sequential:
    """Put a depth-wise convolution before `conv`, which takes back what that does; a power of two is lossless."""
    assert isinstance(conv, nn.Conv2d)
    channels = conv.in_channels
    gains = torch.ones(channels)
    gains[:: channels // NUM_OUTLIERS] = factor
    spread = nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False)
    spread.weight.zero_()
    spread.weight[:, 0, 1, 1] = gains
    conv.weight.div_(gains[:, None, None])
    return nn.Sequential(spread, conv)
