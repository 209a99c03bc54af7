"""`loader = "yolov5"`: from an image to boxes in its own pixels, and which options it refuses."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yolov5_yamls as yamls

from qgate.errors import ModelError
from qgate_yolov5.checkpoint import save_checkpoint
from qgate_yolov5.loader import YoloV5Loader, YoloV5Options
from qgate_yolov5.network import YoloV5

NAMES = ("cat", "dog")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("yolov5") / "net.pt"
    yaml = yamls.p5("n", classes=len(NAMES))
    save_checkpoint(path, YoloV5.from_yaml(yaml), yaml=yaml, names=NAMES)
    return path


@pytest.mark.parametrize("image_size", [128, 320, 416, 640])
@pytest.mark.parametrize("shape", [(480, 640), (333, 517), (517, 333), (1, 500), (97, 97)], ids=str)
def test_box_of_one_cell_comes_back_in_pixels_of_the_image(
    shape: tuple[int, int], image_size: int, weights: Path
) -> None:
    """Only one cell of the middle level finds something: a dog, at the cell's centre and of the first anchor's size."""
    loaded = YoloV5Loader().load(YoloV5Options(weights, image_size))
    (batch,), context = loaded.preprocess(np.zeros((*shape, 3), np.uint8))
    maps = [torch.full((1, 3 * 7, side, side), -100.0) for side in (image_size // stride for stride in (8, 16, 32))]
    middle = image_size // 32
    maps[1][0, :7, middle, middle] = torch.tensor([0, 0, 0, 0, 100.0, -100.0, 100.0])

    found = loaded.postprocess(maps, context)

    assert batch.shape == (1, 3, image_size, image_size)
    assert (found.classes.tolist(), found.scores.tolist()) == ([1], [1.0])
    centre = (middle + 0.5) * 16
    corners = np.array([[centre - 15, centre - 30.5], [centre + 15, centre + 30.5]])
    original = np.array(shape[::-1])
    resized = np.maximum(1, np.round(original * image_size / max(shape)))
    expected = ((corners - (image_size - resized) // 2) * original / resized).clip(0, original)
    np.testing.assert_allclose(found.boxes, expected.reshape(1, 4), atol=1e-3 * max(shape) / image_size)


def test_pixels_are_rgb_from_0_to_1(weights: Path) -> None:
    image = np.zeros((64, 64, 3), np.uint8)
    image[..., 0], image[..., 2] = 255, 51
    (batch,), _ = YoloV5Loader().load(YoloV5Options(weights, 64)).preprocess(image)
    assert batch.dtype == torch.float32
    assert batch[0, :, 10, 10].tolist() == pytest.approx([1.0, 0.0, 0.2])


def test_real_image(assets: Path) -> None:
    """The network finds what a person labelled: the largest box, with its class."""
    import cv2

    loaded = YoloV5Loader().load(YoloV5Options(assets / "yolov5n.pt", confidence=0.25))
    label_file = sorted((assets / "val128/labels").rglob("*.txt"))[0]
    image_file = next((assets / "val128/images").rglob(f"{label_file.stem}.*"))
    image = np.ascontiguousarray(cv2.imread(str(image_file))[:, :, ::-1])
    labels = np.loadtxt(label_file, ndmin=2)
    label, x, y, w, h = labels[np.argmax(labels[:, 3] * labels[:, 4])]
    truth = np.array([x - w / 2, y - h / 2, x + w / 2, y + h / 2]) * (image.shape[1::-1] * 2)
    inputs, context = loaded.preprocess(image)
    with torch.inference_mode():
        found = loaded.postprocess(loaded.module(*inputs), context)
    boxes = found.boxes[found.classes == label]
    shared = (np.minimum(boxes[:, 2:], truth[2:]) - np.maximum(boxes[:, :2], truth[:2])).clip(0).prod(1)
    union = (boxes[:, 2:] - boxes[:, :2]).prod(1) + (truth[2:] - truth[:2]).prod() - shared
    assert (shared / union).max() > 0.7


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_size": 650}, "image_size = 650 is not a multiple of the largest stride, 32; try 640"),
        ({"image_size": 0}, "image_size = 0 is not a multiple of the largest stride, 32; try 32"),
        ({"image_size": -640}, "image_size = -640"),
        ({"confidence": 1.5}, "confidence = 1.5; expected a number from 0 to 1"),
        ({"confidence": float("nan")}, "confidence = nan"),
        ({"nms_iou": -0.1}, "nms_iou = -0.1"),
        ({"max_detections": 0}, "max_detections = 0; expected at least 1"),
    ],
    ids=str,
)
def test_options_that_cannot_be(options: dict[str, Any], message: str, weights: Path) -> None:
    with pytest.raises(ModelError) as caught:
        YoloV5Loader().load(YoloV5Options(weights, **options))
    assert str(caught.value).startswith(f"{weights}: {message}")


def test_description_for_those_who_deploy(weights: Path) -> None:
    loaded = YoloV5Loader().load(YoloV5Options(weights, 320))
    description = json.loads(json.dumps(dict(loaded.input_description)))
    assert description["input"]["shape"] == [1, 3, 320, 320]
    assert description["output"]["strides"] == [8, 16, 32]
    assert description["output"]["anchors_in_pixels"] == [
        [[10, 13], [16, 30], [33, 23]],
        [[30, 61], [62, 45], [59, 119]],
        [[116, 90], [156, 198], [373, 326]],
    ]
    assert description["class_names"] == list(loaded.class_names) == list(NAMES)
