"""The model and its data: what `qgate.toml` calls by name, with no word of quantization."""

from pathlib import Path

import numpy as np
import torch
from torch import nn

import qgate

HERE = Path(__file__).parent


class Classifier(nn.Module):
    """Tells which of ten digits an image of 8x8 pixels shows."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            *convolution(1, 32), *convolution(32, 64), nn.MaxPool2d(2), *convolution(64, 96), nn.AdaptiveAvgPool2d(1)
        )
        self.head = nn.Linear(96, 10)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Map images of shape (N, 1, 8, 8), values 0 to 1, to scores of shape (N, 10)."""
        return self.head(self.features(images).flatten(1))


def convolution(inputs: int, outputs: int) -> list[nn.Module]:
    """Give a convolution with its batch norm, which qgate folds into it, and its activation."""
    return [nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]


def preprocess(image: np.ndarray) -> tuple[tuple[torch.Tensor], None]:
    """Turn one image (8x8, uint8, 0 to 16) into a batch of one; `postprocess` needs nothing else of it."""
    return (torch.from_numpy(image / np.float32(16))[None, None],), None


def postprocess(scores: torch.Tensor, _context: None) -> int:
    """Turn the scores of a batch of one into a digit."""
    return int(scores.argmax())


def load() -> qgate.LoadedModel:
    """Load the trained model; `[models.classifier] factory` names this function."""
    model = Classifier()
    model.load_state_dict(torch.load(HERE / "classifier.pt", weights_only=True))
    return qgate.LoadedModel(
        module=model.eval(),
        example_inputs=(torch.zeros(1, 1, 8, 8),),
        preprocess=preprocess,
        postprocess=postprocess,
        class_names=tuple("0123456789"),
        input_description={"size": [8, 8], "values": "0 (paper) to 1 (ink)"},
    )


def calibration() -> list[qgate.Sample]:
    """Give images that the model was trained on; calibration needs no labels."""
    with np.load(HERE / "digits.npz", allow_pickle=False) as data:
        return [qgate.Sample(f"train-{i}", image) for i, image in enumerate(data["calibration_images"])]


def evaluation() -> list[qgate.Sample]:
    """Give images that the model has not seen, with their labels."""
    with np.load(HERE / "digits.npz", allow_pickle=False) as data:
        pairs = zip(data["evaluation_images"], data["evaluation_labels"], strict=True)
        return [qgate.Sample(f"test-{i}", image, int(label)) for i, (image, label) in enumerate(pairs)]
