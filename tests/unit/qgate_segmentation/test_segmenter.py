import numpy as np
import pytest
import torch
from PIL import Image

from qgate.errors import ModelError
from qgate_segmentation.segmenter import Preprocessing, label_map, semantic_segmenter


def test_preprocessing_is_that_of_pillow() -> None:
    image = np.random.default_rng(0).integers(0, 256, (70, 50, 3), dtype=np.uint8)
    (batch,), size = Preprocessing(32, 48, (0.5,) * 3, (0.25,) * 3)(image)
    pixels = np.asarray(Image.fromarray(image).resize((48, 32), Image.Resampling.BILINEAR)) / 255
    np.testing.assert_allclose(batch[0].permute(1, 2, 0), (pixels - 0.5) / 0.25, atol=1.01 / 255 / 0.25)
    assert size == (70, 50)


def test_logits_are_interpolated_to_the_image_before_the_class_is_told() -> None:
    # Between centres at 0.5 and 2.5 of four columns, class 1's logit rises from -1 to 3 and passes 0 in the second.
    logits = torch.tensor([[[[0.0, 0.0]], [[-1.0, 3.0]]]])
    assert label_map(logits, (3, 4)).labels.tolist() == [[0, 0, 1, 1]] * 3
    assert label_map(logits, (3, 4)).labels.dtype == np.uint8


@pytest.mark.parametrize("shape", [(1, 1, 4, 4), (1, 256, 4, 4), (1, 4)], ids=str)
def test_an_output_of_another_shape_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ModelError, match="expected \\(1, classes, h, w\\), 2 to 255 classes"):
        label_map(torch.zeros(shape), (4, 4))


def test_an_output_that_is_not_finite_is_refused() -> None:
    with pytest.raises(ModelError, match="not finite"):
        label_map(torch.full((1, 2, 4, 4), torch.nan), (4, 4))


def test_one_line_makes_a_loaded_model() -> None:
    loaded = semantic_segmenter(torch.nn.Conv2d(3, 2, 1), Preprocessing(16, 24), class_names=["a", "b"])
    inputs, context = loaded.preprocess(np.zeros((31, 47, 3), np.uint8))
    with torch.inference_mode():
        found = loaded.postprocess(loaded.module(*inputs), context)
    assert found.labels.shape == (31, 47)
    assert loaded.example_inputs[0].shape == (1, 3, 16, 24)
    assert loaded.input_description["input"]["shape"] == [1, 3, 16, 24]


@pytest.mark.parametrize("options", [{"height": 0, "width": 4}, {"height": 4, "width": 4, "std": (0.0, 1.0, 1.0)}])
def test_preprocessing_that_cannot_be(options: dict) -> None:
    with pytest.raises(ValueError, match="must be above 0"):
        Preprocessing(**options)
