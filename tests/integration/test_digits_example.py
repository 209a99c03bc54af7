from __future__ import annotations

import contextlib
import importlib
import io
import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from qgate_yolov5.loader import YoloV5Loader

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

    from qgate.protocols import LoadedModel
    from qgate_detection.boxes import Detections

ROOT = Path(__file__).parents[2]
DIGITS = ROOT / "examples" / "digits"
DATA = DIGITS / "data"


@pytest.fixture
def scenes(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    pytest.importorskip("sklearn", reason="the digits are scikit-learn's")
    monkeypatch.syspath_prepend(DIGITS)
    return importlib.import_module("scenes")


@pytest.fixture(scope="module")
def model() -> LoadedModel:
    options = YoloV5Loader.Options(weights=DIGITS / "digits.pt", image_size=192)
    return YoloV5Loader().load(options)


@pytest.fixture
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def read_json(split: str) -> Any:
    return json.loads((DATA / f"{split}.json").read_text(encoding="utf-8"))


def test_the_stored_files_stay_small() -> None:
    assert sum(path.stat().st_size for path in DATA.rglob("*") if path.is_file()) < 4_000_000
    assert (DIGITS / "digits.pt").stat().st_size < 2_000_000


@pytest.mark.parametrize(("split", "at_least"), [("train", 64), ("val", 100)])
def test_the_data_set_is_sound_coco(split: str, at_least: int) -> None:
    document = read_json(split)
    images = {image["id"]: image for image in document["images"]}
    assert len(images) >= at_least
    assert {path.name for path in (DATA / split).iterdir()} == {image["file_name"] for image in images.values()}
    assert [annotation["id"] for annotation in document["annotations"]] == list(
        range(1, len(document["annotations"]) + 1)
    )
    assert [category["id"] for category in document["categories"]] == list(range(1, 11))
    assert {annotation["category_id"] for annotation in document["annotations"]} == set(range(1, 11))
    for annotation in document["annotations"]:
        left, top, width, height = annotation["bbox"]
        image = images[annotation["image_id"]]
        assert left >= 0
        assert top >= 0
        assert min(width, height) >= 5
        assert left + width <= image["width"]
        assert top + height <= image["height"]


def test_no_handwriting_is_in_both_splits(scenes: ModuleType) -> None:
    inks = {split: {digit.ink.tobytes() for digit in scenes.source_digits(split)} for split in ("train", "val")}
    assert len(inks["val"]) > 400
    assert not inks["train"] & inks["val"]


def test_a_seed_draws_the_same_picture_again(scenes: ModuleType) -> None:
    digits = scenes.source_digits("train")
    first, again = (scenes.draw_scene(digits, np.random.default_rng(3)) for _ in range(2))
    assert (first.image == again.image).all()
    assert (first.boxes == again.boxes).all()
    assert not np.array_equal(first.image, scenes.draw_scene(digits, np.random.default_rng(4)).image)


def test_boxes_enclose_the_ink_tightly(scenes: ModuleType) -> None:
    ink = scenes.source_digits("train")[0].ink
    opacity = scenes.render(ink, np.random.default_rng(0))
    for edge in (opacity[0], opacity[-1], opacity[:, 0], opacity[:, -1]):
        assert edge.max() > 0.4


def as_coco(image_id: int, detections: Detections) -> list[dict[str, Any]]:
    corners_and_sizes = np.concatenate(
        (detections.boxes[:, :2], detections.boxes[:, 2:] - detections.boxes[:, :2]), axis=1
    )
    return [
        {"image_id": image_id, "category_id": int(label) + 1, "bbox": box.tolist(), "score": float(score)}
        for box, score, label in zip(corners_and_sizes, detections.scores, detections.classes, strict=True)
    ]


@torch.inference_mode()
def predict(model: LoadedModel, path: Path) -> Detections:
    image = np.asarray(cv2.imread(str(path), cv2.IMREAD_COLOR))
    inputs, context = model.preprocess(cv2.cvtColor(image, cv2.COLOR_BGR2RGB))
    prediction: Detections = model.postprocess(model.module(*inputs), context)
    return prediction


def average_precision(annotations: Path, detections: list[dict[str, Any]]) -> tuple[float, float]:
    """Give mAP@[.50:.95] and mAP@.50 as pycocotools computes them."""
    with contextlib.redirect_stdout(io.StringIO()):  # it reports as it goes
        truth = COCO(annotations)
        evaluation = COCOeval(truth, truth.loadRes(detections), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return float(evaluation.stats[0]), float(evaluation.stats[1])


@pytest.mark.usefixtures("one_thread")
def test_the_stored_network_finds_most_digits_and_not_all(model: LoadedModel) -> None:
    detections = [
        row
        for image in read_json("val")["images"]
        for row in as_coco(image["id"], predict(model, DATA / "val" / image["file_name"]))
    ]
    strict, lenient = average_precision(DATA / "val.json", detections)
    assert 0.80 < strict < 0.97
    assert 0.90 < lenient < 1


def test_the_root_gate_passes(tmp_path: Path) -> None:
    (tmp_path / "qgate.toml").write_bytes((ROOT / "qgate.toml").read_bytes())
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    # Speed is for quiet machines, which those that run tests are not: `make gate` judges that too.
    arguments = ["--qgate", "qgate.toml", "--qgate-no-timing", "-k", "not speedup"]
    command = [sys.executable, "-m", "pytest", *arguments]
    process = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120)
    assert process.returncode == 0, process.stdout + process.stderr
    results = json.loads((tmp_path / ".qgate" / "results.json").read_text(encoding="utf-8"))
    assert results["models"]["digits"]["metrics"]["map"]["candidate"] >= 0.80
    assert results["models"]["digits"]["num_evaluation_samples"] == len(read_json("val")["images"])


def test_the_network_is_small(model: LoadedModel) -> None:
    assert sum(parameter.numel() for parameter in model.module.parameters()) < 1_000_000
    assert model.class_names == ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
