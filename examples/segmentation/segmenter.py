"""The model that `qgate.toml` calls by name, with no word of quantization."""

from pathlib import Path

import torch
from torch import nn

import qgate
from qgate_segmentation.segmenter import Preprocessing, semantic_segmenter

HERE = Path(__file__).parent
CLASS_NAMES = ("background", "disc", "square", "triangle")
PREPROCESSING = Preprocessing(height=64, width=64, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))


def convolution(inputs: int, outputs: int) -> nn.Module:
    """Give a convolution with its batch norm, which qgate folds into it, and its activation."""
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU())


class UNet(nn.Module):
    """A small U-Net: three scales, each joined again with what was seen before shrinking."""

    def __init__(self) -> None:
        super().__init__()
        self.fine = nn.Sequential(convolution(3, 6), convolution(6, 16))
        self.middle = nn.Sequential(convolution(16, 24), convolution(24, 24))
        self.coarse = nn.Sequential(convolution(24, 32), convolution(32, 32))
        self.up_middle = convolution(32 + 24, 24)
        self.up_fine = convolution(24 + 16, 16)
        self.head = nn.Conv2d(16, len(CLASS_NAMES), 1)
        self.shrink = nn.MaxPool2d(2)
        self.grow = nn.Upsample(scale_factor=2)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Map normalized images (N, 3, H, W), sides multiples of 4, to logits (N, 4, H, W)."""
        fine = self.fine(images)
        middle = self.middle(self.shrink(fine))
        coarse = self.coarse(self.shrink(middle))
        middle = self.up_middle(torch.cat([self.grow(coarse), middle], dim=1))
        return self.head(self.up_fine(torch.cat([self.grow(middle), fine], dim=1)))


def load() -> qgate.LoadedModel:
    """Load the trained model; `[models.shapes] factory` names this function."""
    network = UNet()
    network.load_state_dict(torch.load(HERE / "segmenter.pt", weights_only=True))
    return semantic_segmenter(network, PREPROCESSING, class_names=CLASS_NAMES)
