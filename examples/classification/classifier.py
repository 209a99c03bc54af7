"""The model that `qgate.toml` calls by name, with no word of quantization."""

from pathlib import Path

import torch
from torch import nn

import qgate
from qgate_classification.classifier import Preprocessing, image_classifier

HERE = Path(__file__).parent
CLASS_NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
PREPROCESSING = Preprocessing(resize=28, crop=24, mean=(0.3, 0.3, 0.3), std=(0.4, 0.4, 0.4))


def convolution(inputs: int, outputs: int, stride: int = 1) -> nn.Module:
    """Give a convolution with its batch norm, which qgate folds into it, and its activation."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()
    )


class Classifier(nn.Module):
    """Tells which of ten digits an image shows."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            convolution(3, 16), convolution(16, 32, stride=2), convolution(32, 48, stride=2), convolution(48, 64)
        )
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, len(CLASS_NAMES)))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Map normalized images (N, 3, 24, 24) to scores (N, 10)."""
        return self.head(self.features(images))


def load() -> qgate.LoadedModel:
    """Load the trained model; `[models.digits] factory` names this function."""
    network = Classifier()
    network.load_state_dict(torch.load(HERE / "classifier.pt", weights_only=True))
    return image_classifier(network, PREPROCESSING, class_names=CLASS_NAMES)
