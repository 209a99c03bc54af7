import numpy as np
import pytest
import torch
from PIL import Image

from qgate_classification.classifier import Preprocessing, class_scores, image_classifier
from qgate_detection.pixels import IMAGENET_MEAN, IMAGENET_STD


def pillows(image: np.ndarray, resize: int, crop: int) -> np.ndarray:
    """Do what torchvision's transforms do with a Pillow image: Resize, CenterCrop, ToTensor, Normalize."""
    picture = Image.fromarray(image)
    width, height = picture.size
    shorter, longer = sorted((width, height))
    other = int(resize * longer / shorter)
    picture = picture.resize((resize, other) if width <= height else (other, resize), Image.Resampling.BILINEAR)
    left, top = round((picture.width - crop) / 2), round((picture.height - crop) / 2)
    pixels = np.asarray(picture.crop((left, top, left + crop, top + crop))) / 255.0
    return ((pixels - IMAGENET_MEAN) / IMAGENET_STD).transpose(2, 0, 1)


@pytest.mark.parametrize("shape", [(300, 400), (401, 299), (64, 64), (500, 131)], ids=str)
@pytest.mark.parametrize(("resize", "crop"), [(64, 56), (65, 65)])
def test_preprocessing_is_that_of_torchvision_and_pillow(shape: tuple[int, int], resize: int, crop: int) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    (batch,), _ = Preprocessing(resize, crop)(image)
    assert batch.shape == (1, 3, crop, crop)
    assert batch.dtype == torch.float32
    one_level = 1 / 255 / min(IMAGENET_STD)  # the two round 8-bit results differently
    np.testing.assert_allclose(batch[0].numpy(), pillows(image, resize, crop), atol=1.01 * one_level)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"resize": 224, "crop": 256}, "crop = 256 must be above 0 and at most resize = 224"),
        ({"crop": 0}, "crop = 0"),
        ({"std": (1.0, 0.0, 1.0)}, "std"),
    ],
)
def test_preprocessing_that_cannot_be(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Preprocessing(**options)


def test_one_line_makes_a_loaded_model() -> None:
    module = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.AdaptiveAvgPool2d(1))
    loaded = image_classifier(module, Preprocessing(32, 24), class_names=list("abcd"))
    inputs, context = loaded.preprocess(np.zeros((50, 40, 3), np.uint8))
    with torch.inference_mode():
        output = loaded.module(*inputs)
    assert loaded.example_inputs[0].shape == inputs[0].shape == (1, 3, 24, 24)
    assert not loaded.module.training
    assert loaded.postprocess(output, context).scores.tolist() == output.flatten().tolist()
    assert loaded.class_names == ("a", "b", "c", "d")
    assert loaded.input_description["input"]["resize"]["shorter_side"] == 32


def test_scores_are_float32_of_any_output() -> None:
    assert class_scores(torch.ones(1, 3, dtype=torch.bfloat16)).scores.dtype == np.float32
