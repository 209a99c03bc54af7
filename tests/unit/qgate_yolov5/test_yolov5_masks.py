"""YOLOv5-seg: from a checkpoint as v7.0 writes it to masks in the image's pixels."""

import contextlib
import io
import json
import sys
import warnings
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import yolov5_yamls as yamls
from command_line import in_process
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torch.nn.functional import grid_sample, interpolate
from yolov5_reference import forward_of_detect, pickled_checkpoint, randomize, reference_maps, yolov5_classes

from qgate.errors import ModelError
from qgate_detection.letterbox import letterbox
from qgate_segmentation.masks import InstanceDetections, Masks
from qgate_yolov5.checkpoint import read_checkpoint, save_checkpoint
from qgate_yolov5.loader import YoloV5Loader, YoloV5Options
from qgate_yolov5.masks import draw_masks
from qgate_yolov5.network import YoloV5, build_network

SIDE = 64
YAML = {**yamls.p5("n", classes=2, last=yamls.SEGMENT), "width_multiple": 0.125, "depth_multiple": 0.1}


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(1)
    network = YoloV5.from_yaml(YAML)
    randomize(network)
    for module in network.modules():  # else an untrained network gives the same for every image
        if isinstance(module, torch.nn.BatchNorm2d):
            module.weight.data *= 2.3
    path = tmp_path_factory.mktemp("seg") / "seg.pt"
    pickled_checkpoint(network, YAML, path, image_size=SIDE)
    return path


def decoded(masks: Masks) -> np.ndarray:
    """Decode run lengths: bool (N, H, W)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pycocotools has not followed numpy 2
        found = [coco_mask.decode(mask).astype(bool) for mask in masks.encoded()]
    return np.array(found).reshape(-1, masks.height, masks.width)


def cropped(probabilities: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    rows, columns = np.mgrid[: probabilities.shape[1], : probabilities.shape[2]]
    inside = [(columns >= x1) & (columns < x2) & (rows >= y1) & (rows < y2) for x1, y1, x2, y2 in boxes]
    return (probabilities > 0.5) & np.array(inside)


def settled(probabilities: np.ndarray) -> np.ndarray:
    return np.abs(probabilities - 0.5) > 1e-5


@pytest.fixture
def drawn() -> tuple[np.ndarray, np.ndarray]:
    """Prototypes and coefficients of five masks."""
    rng = np.random.default_rng(0)
    return rng.normal(size=(32, 16, 16)).astype(np.float32), rng.normal(size=(5, 32)).astype(np.float32)


def test_masks_of_a_square_image_are_what_torch_interpolates(drawn: tuple[np.ndarray, np.ndarray]) -> None:
    prototypes, coefficients = drawn
    _, placement = letterbox(np.zeros((SIDE, SIDE, 3), np.uint8), SIDE)
    boxes = np.array([[0, 0, 64, 64], [3.2, 5, 40, 61.7], [60, 60, 64, 64], [5, 5, 5, 9], [10, 20, 11, 21]], np.float32)

    found = decoded(draw_masks(prototypes, coefficients, boxes, placement, 4.0))

    cells = torch.einsum("nm,mhw->nhw", *map(torch.from_numpy, (coefficients, prototypes))).sigmoid()
    pixels = interpolate(cells[None], (SIDE, SIDE), mode="bilinear", align_corners=False)[0].numpy()
    assert (found == cropped(pixels, boxes))[settled(pixels)].all()
    assert settled(pixels).mean() > 0.99
    assert [mask.any() for mask in found[[0, 1, 3]]] == [True, True, False]


@pytest.mark.parametrize("shape", [(100, 60), (45, 201), (33, 32), (300, 310)], ids=str)
def test_the_letterbox_is_undone(shape: tuple[int, int], drawn: tuple[np.ndarray, np.ndarray]) -> None:
    """Against a sampler of torch's that takes any coordinates: where the centre of each pixel lies in the square."""
    prototypes, coefficients = drawn
    height, width = shape
    _, placement = letterbox(np.zeros((height, width, 3), np.uint8), SIDE)
    boxes = np.tile(np.array([0, 0, width, height], np.float32), (5, 1))
    boxes[1] = [0.1 * width, 0.3 * height, 0.7 * width, 0.9 * height]

    found = decoded(draw_masks(prototypes, coefficients, boxes, placement, 4.0))

    resized = np.maximum(1, np.round(np.array([width, height]) * SIDE / max(shape)))
    x = (np.arange(width) + 0.5) * resized[0] / width + (SIDE - resized[0]) // 2
    y = (np.arange(height) + 0.5) * resized[1] / height + (SIDE - resized[1]) // 2
    grid = torch.tensor(np.stack(np.meshgrid(x, y), -1) / SIDE * 2 - 1)[None]
    cells = torch.einsum("nm,mhw->nhw", *map(torch.from_numpy, (coefficients, prototypes))).sigmoid().double()
    pixels = grid_sample(cells[None], grid, padding_mode="border", align_corners=False)[0].numpy()
    assert (found == cropped(pixels, boxes))[settled(pixels)].all()
    assert found.any()


def test_maps_and_prototypes_are_what_the_files_own_wiring_gives(weights: Path) -> None:
    images = torch.rand(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    images[1] /= 4
    with torch.inference_mode():
        found = build_network(read_checkpoint(weights))(images)
        expected = reference_maps(weights, images)
    assert [tuple(one.shape[1:]) for one in found] == [(117, 8, 8), (117, 4, 4), (117, 2, 2), (32, 16, 16)]
    for one, other in zip(found, expected, strict=True):
        assert (one[0] - one[1]).abs().max() > 0.02 * one.std()
        torch.testing.assert_close(one.double(), other, rtol=1e-3, atol=1e-3 * float(other.std()))


def test_a_detection_has_the_coefficients_of_its_own_cell(weights: Path) -> None:
    """Against the file's own wiring and tensors in float64: the cell of each score, and what its coefficients draw."""
    loaded = YoloV5Loader().load(YoloV5Options(weights, SIDE, confidence=0.3, max_detections=7))
    image = np.random.default_rng(3).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    inputs, placement = loaded.preprocess(image)
    with torch.inference_mode():
        found = loaded.postprocess(loaded.module(*inputs), placement)
        *maps, prototypes = reference_maps(weights, inputs[0])

    assert isinstance(found, InstanceDetections)
    assert len(found) == len(found.masks) == 7
    candidates = torch.cat([one[0].unflatten(0, (3, -1)).permute(0, 2, 3, 1).flatten(0, 2) for one in maps])
    scores = candidates[:, 4:5].sigmoid() * candidates[:, 5:7].sigmoid()
    cells = [
        int(np.abs(scores[:, label].numpy() - score).argmin())
        for score, label in zip(found.scores, found.classes, strict=True)
    ]
    np.testing.assert_allclose(scores[cells, found.classes], found.scores, atol=1e-4)
    coefficients = candidates[cells, 7:].float().numpy()
    expected = decoded(draw_masks(prototypes[0].float().numpy(), coefficients, found.boxes, placement, 4.0))
    assert (decoded(found.masks) == expected).mean() > 0.999
    assert expected.any(axis=(1, 2)).any()
    assert not expected.all()


def test_the_head_of_a_seg_checkpoint_names_getattr_and_nothing_else_may(weights: Path, tmp_path: Path) -> None:
    assert b"__builtin__\ngetattr" in weights.read_bytes()
    assert read_checkpoint(weights).training_size == SIDE
    with yolov5_classes():
        for owner, name in (("DetectionModel", "forward"), ("Detect", "train")):
            kind = getattr(sys.modules["models.yolo"], owner)
            torch.save({"model": _GetAttribute(kind, name)}, tmp_path / "evil.pt")
            with pytest.raises(ModelError, match=r"refused, and nothing was run: its pickle names builtins\.getattr"):
                read_checkpoint(tmp_path / "evil.pt")


class _GetAttribute:
    """Pickles as a call of `getattr`."""

    def __init__(self, *arguments: Any) -> None:
        self.arguments = arguments

    def __reduce__(self) -> Any:
        return getattr, self.arguments


@pytest.mark.parametrize(("attribute", "value"), [("nm", 31), ("nm", "32"), ("nm", 0)])
def test_coefficients_that_do_not_fit_the_prototypes(attribute: str, value: Any, weights: Path, tmp_path: Path) -> None:
    path = tmp_path / "damaged.pt"
    with yolov5_classes():
        forward_of_detect()
        document = torch.load(weights, weights_only=False)
        setattr(document["model"].model[-1], attribute, value)
        torch.save(document, path)
    with pytest.raises(ModelError) as caught:
        build_network(read_checkpoint(path))
    assert str(caught.value).startswith(f"{path}: ")


def test_plain_checkpoint_of_segmentation_gives_the_network_back(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network, image = YoloV5.from_yaml(YAML).eval(), torch.rand(1, 3, SIDE, SIDE)
    save_checkpoint(tmp_path / "plain.pt", network, yaml=YAML, names=["a", "b"])
    again = build_network(read_checkpoint(tmp_path / "plain.pt"))
    with torch.no_grad():
        for one, other in zip(network(image), again(image), strict=True):
            assert torch.equal(one, other)
    assert again.num_coefficients == 32
    loaded = YoloV5Loader().load(YoloV5Options(tmp_path / "plain.pt", SIDE))
    output = json.loads(json.dumps(dict(loaded.input_description)))["output"]
    assert output["prototypes"] == "the last output: (N, 32, height / 4, width / 4)"
    assert output["channels_per_anchor"][-1] == "32 mask coefficients"


CONFIG = """
schema_version = 1

[models.seg]
loader = "yolov5"
weights = "{weights}"
image_size = 64
confidence = 0.3
max_detections = 12

[models.seg.data]
format = "coco_masks"
calibration = {{ images = "images", annotations = "instances.json" }}
evaluation = {{ images = "images", annotations = "instances.json" }}

[models.seg.quantization]
ignored_scope = ["model.24.*"]

[models.seg.thresholds.mask_map]
max_drop = 1.0
lower_bound = 0.5

[models.seg.thresholds.map]
max_drop = 1.0
"""


def test_a_gate_judges_masks_and_boxes(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The network is untrained, so what float32 finds is what is labelled; int8 must find it again."""
    found = _write_data(tmp_path, weights)
    (tmp_path / "qgate.toml").write_text(CONFIG.format(weights=weights))
    monkeypatch.chdir(tmp_path)

    outcome = in_process(capsys)("check")

    assert outcome.code == 0, outcome
    metrics = json.loads((tmp_path / ".qgate" / "results.json").read_text())["models"]["seg"]["metrics"]
    assert metrics["mask_map"]["baseline"] == pytest.approx(_average_precision(tmp_path, found, "segm"), abs=1e-9)
    assert metrics["map"]["baseline"] == pytest.approx(_average_precision(tmp_path, found, "bbox"), abs=1e-6)
    assert 0.5 < metrics["mask_map"]["candidate"] < metrics["mask_map"]["baseline"]


def _average_precision(root: Path, found: list[InstanceDetections], kind: str) -> float:
    """Give mAP@[.50:.95] of masks or boxes as pycocotools computes it."""
    results = [
        {"image_id": image_id, "category_id": int(label) + 1, "score": float(score)}
        | (
            {"segmentation": mask}
            if kind == "segm"
            else {"bbox": [*map(float, box[:2]), *map(float, box[2:] - box[:2])]}
        )
        for image_id, one in enumerate(found, start=1)
        for label, score, mask, box in zip(
            one.classes, one.scores, one.masks.encoded(), one.boxes.astype(float), strict=True
        )
    ]
    with contextlib.redirect_stdout(io.StringIO()):  # it reports as it goes
        truth = COCO(root / "instances.json")
        evaluation = COCOeval(truth, truth.loadRes(results), kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return float(evaluation.stats[0])


def _write_data(root: Path, weights: Path) -> list[InstanceDetections]:
    """Write images with what float32 finds as their labels, and give that."""
    loaded = YoloV5Loader().load(YoloV5Options(weights, SIDE, confidence=0.3, max_detections=12))
    rng, images, annotations, predicted = np.random.default_rng(0), [], [], []
    (root / "images").mkdir()
    for image_id in range(1, 13):
        pixels = cv2.resize(rng.integers(0, 256, (5, 5, 3), dtype=np.uint8), (72, 54), interpolation=cv2.INTER_CUBIC)
        name = f"{image_id}.png"
        cv2.imwrite(str(root / "images" / name), pixels)
        images.append({"id": image_id, "file_name": name, "height": 54, "width": 72})
        inputs, placement = loaded.preprocess(np.ascontiguousarray(pixels[:, :, ::-1]))
        with torch.inference_mode():
            found = loaded.postprocess(loaded.module(*inputs), placement)
        predicted.append(found)
        for index in np.flatnonzero(found.masks.areas() > 0):
            x1, y1, x2, y2 = map(float, found.boxes[index])
            annotation = {
                "id": len(annotations) + 1,
                "image_id": image_id,
                "category_id": int(found.classes[index]) + 1,
            }
            mask = found.masks.encoded()[index]
            area = float(found.masks.areas()[index])
            box = [x1, y1, x2 - x1, y2 - y1]
            annotations.append({**annotation, "bbox": box, "area": area, "segmentation": mask, "iscrowd": 0})
    categories = [{"id": 1, "name": "class0"}, {"id": 2, "name": "class1"}]
    document = {"images": images, "annotations": annotations, "categories": categories}
    (root / "instances.json").write_text(json.dumps(document))
    return predicted
