"""What `qgate init --data` finds out about detection data."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from qgate.errors import DataError
from qgate_detection.proposal import propose_data

if TYPE_CHECKING:
    from pathlib import Path

COCO = {"images": [{"id": 1, "file_name": "a.jpg"}], "annotations": [], "categories": [{"id": 1, "name": "cat"}]}
YAML = "path: .\nnames: [cat]\n"


@dataclass(frozen=True)
class Layout:
    """Files by path, what `--data` names, and the splits expected: paths are relative to the root of the data."""

    id: str
    files: dict[str, str]
    data: str
    format: str
    calibration: dict[str, str]
    evaluation: dict[str, str]


def _yaml(split: str) -> dict[str, str]:
    return {"path": "data.yaml", "split": split}


def _coco(images: str, annotations: str) -> dict[str, str]:
    return {"images": images, "annotations": annotations}


COCO_TEXT = json.dumps(COCO)
TRAIN_AND_VAL = {"images/train/a.jpg": "", "images/val/b.jpg": ""}
LAYOUTS = [
    Layout(
        "yaml-with-train-and-val",
        {"data.yaml": YAML + "train: images/train\nval: images/val\n", **TRAIN_AND_VAL},
        "data.yaml",
        "yolo",
        _yaml("train"),
        _yaml("val"),
    ),
    Layout(
        "yaml-whose-train-images-are-elsewhere",
        {"data.yaml": YAML + "train: images/elsewhere\nval: images/val\n", **TRAIN_AND_VAL},
        "data.yaml",
        "yolo",
        _yaml("val"),
        _yaml("val"),
    ),
    Layout(
        "yaml-with-train-and-test",
        {"data.yaml": YAML + "train: images/train\ntest: images/val\n", **TRAIN_AND_VAL},
        ".",
        "yolo",
        _yaml("train"),
        _yaml("test"),
    ),
    Layout(
        "coco-as-published",
        {
            "annotations/instances_train2017.json": COCO_TEXT,
            "annotations/instances_val2017.json": COCO_TEXT,
            "train2017/a.jpg": "",
            "val2017/a.jpg": "",
        },
        ".",
        "coco",
        _coco("train2017", "annotations/instances_train2017.json"),
        _coco("val2017", "annotations/instances_val2017.json"),
    ),
    Layout(
        "coco-with-one-set",
        {"instances.json": COCO_TEXT, "images/a.jpg": ""},
        "instances.json",
        "coco",
        _coco("images", "instances.json"),
        _coco("images", "instances.json"),
    ),
    Layout(
        "coco-as-roboflow-exports-it",
        {
            "train/_annotations.coco.json": COCO_TEXT,
            "train/a.jpg": "",
            "valid/_annotations.coco.json": COCO_TEXT,
            "valid/a.jpg": "",
        },
        ".",
        "coco",
        _coco("train", "train/_annotations.coco.json"),
        _coco("valid", "valid/_annotations.coco.json"),
    ),
    Layout("folders", TRAIN_AND_VAL, ".", "yolo", {"path": "images/train"}, {"path": "images/val"}),
    Layout("one-folder", {"a.jpg": ""}, ".", "yolo", {"path": "."}, {"path": "."}),
    Layout(
        "lists",
        {"train.txt": "a.jpg\n", "val.txt": "b.jpg\n"},
        "val.txt",
        "yolo",
        {"path": "train.txt"},
        {"path": "val.txt"},
    ),
]


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.id)
def test_splits_are_found(layout: Layout, tmp_path: Path) -> None:
    root = tmp_path / "set"
    _write(root, layout.files)
    proposal: Any = propose_data(root / layout.data)
    assert proposal["data"]["format"] == layout.format
    for split, expected in (("calibration", layout.calibration), ("evaluation", layout.evaluation)):
        paths = {key: value if key == "split" else root / value for key, value in expected.items()}
        assert proposal["data"][split] == paths
    assert proposal["thresholds"] == {"agreement": {"max_drop": 0.25}}  # of one image without labels


@pytest.mark.parametrize(("num_images", "max_drop"), [(100, 0.03), (128, 0.03), (625, 0.01), (5000, 0.01)])
def test_the_limit_is_what_the_number_of_images_can_settle(num_images: int, max_drop: float, tmp_path: Path) -> None:
    names = "\n".join(f"{index}.jpg" for index in range(num_images))
    _write(tmp_path, {"val.txt": names, "7.txt": "0 0.5 0.5 0.1 0.1"})
    proposal: Any = propose_data(tmp_path / "val.txt")
    assert proposal["thresholds"] == {"map": {"max_drop": max_drop}}
    assert proposal["num_evaluation_samples"] == num_images


@pytest.mark.parametrize(("annotations", "metric"), [([], "agreement"), ([(1, 1)], "map")])
def test_images_without_labels_are_compared_with_float32(
    annotations: list[tuple[int, int]], metric: str, tmp_path: Path
) -> None:
    objects = [
        {"id": index, "image_id": image, "category_id": 1, "bbox": [0, 0, 4, 4], "area": 16, "iscrowd": 0}
        for index, image in annotations
    ]
    _write(tmp_path, {"instances.json": json.dumps({**COCO, "annotations": objects}), "images/a.jpg": ""})
    proposal: Any = propose_data(tmp_path / "instances.json")
    assert list(proposal["thresholds"]) == [metric]


def test_other_files_are_left_to_other_plugins(tmp_path: Path) -> None:
    (tmp_path / "data.csv").touch()
    assert propose_data(tmp_path / "data.csv") is None


def test_a_data_file_without_images_says_why(tmp_path: Path) -> None:
    _write(tmp_path, {"data.yaml": YAML + "val: images/val\n"})
    with pytest.raises(DataError, match=r"no split whose images are there: .*images/val: does not exist"):
        propose_data(tmp_path / "data.yaml")


def test_annotations_without_their_images_say_where_they_were_looked_for(tmp_path: Path) -> None:
    _write(tmp_path, {"instances.json": COCO_TEXT})
    with pytest.raises(DataError, match=r"the image a\.jpg is in none of .*/images"):
        propose_data(tmp_path / "instances.json")


def _write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")
