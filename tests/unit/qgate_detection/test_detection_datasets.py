import hashlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from qgate.errors import DataError
from qgate_detection.coco import CocoDataset, CocoOptions
from qgate_detection.yolo import YoloDataset, YoloOptions

CLASSES = ("car", "cat", "cow")
DATA_YAML = "path: .\nval: images\nnames: [car, cat, cow]\n"


def write_image(path: Path, width: int = 40, height: int = 20) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(len(path.name)).integers(0, 255, (height, width, 3), dtype=np.uint8)
    assert cv2.imwrite(str(path), pixels)
    return path


@pytest.fixture
def yolo(tmp_path: Path) -> Path:
    """A folder with data.yaml, a labelled image a.png of 40x20 pixels, and an image of background b.png."""
    write_image(tmp_path / "images" / "a.png")
    write_image(tmp_path / "images" / "b.png")
    write_label(tmp_path, "1 0.5 0.5 0.5 0.5\n0 0.25 0.25 0.25 0.25\n")
    (tmp_path / "data.yaml").write_text(DATA_YAML)
    return tmp_path


def write_label(folder: Path, text: str) -> Path:
    path = folder / "labels" / "a.txt"
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    return path


def open_yolo(path: Path, split: str | None = None, *, names=CLASSES, require_targets: bool = True) -> YoloDataset:
    return YoloDataset.open(YoloOptions(path, split), class_names=names, require_targets=require_targets)


def yolo_error(folder: Path, *, names=CLASSES) -> str:
    with pytest.raises(DataError) as caught:
        open_yolo(folder / "data.yaml", "val", names=names)
    assert "\n" not in str(caught.value)
    return str(caught.value).replace(f"{folder}{os.sep}", "")


def test_yolo_reads_boxes_in_pixels(yolo: Path) -> None:
    dataset = open_yolo(yolo / "data.yaml", "val")
    sample = dataset.sample(0)
    assert sample.input.shape == (20, 40, 3)
    assert sample.target.boxes.tolist() == [[10, 5, 30, 15], [5, 2.5, 15, 7.5]]
    assert sample.target.classes.tolist() == [1, 0]
    assert sample.target.areas.tolist() == [200, 50]
    assert not sample.target.crowd.any()
    assert sample.id == dataset.sample_id(0) == "images/a.png"
    assert dataset.strata(0) == {"cat", "car"}
    assert dataset.class_names == CLASSES


def test_yolo_images_are_rgb_and_fingerprinted_by_content(yolo: Path) -> None:
    cv2.imwrite(str(yolo / "images" / "a.png"), np.full((4, 4, 3), (255, 0, 0), np.uint8))  # blue, in cv2's order
    dataset = open_yolo(yolo / "data.yaml", "val")
    assert dataset.sample(0).input[0, 0].tolist() == [0, 0, 255]
    assert dataset.fingerprint(0) == hashlib.sha256((yolo / "images" / "a.png").read_bytes()).hexdigest()


def test_an_image_without_a_label_file_is_background(yolo: Path) -> None:
    dataset = open_yolo(yolo / "data.yaml", "val")
    assert len(dataset) == 2
    assert len(dataset.sample(1).target) == 0
    assert dataset.strata(1) == frozenset()


@pytest.mark.parametrize(
    "text",
    [
        "path: .\nval: [images]\nnames: {0: car, 1: cat, 2: cow}\n",
        "val: ./list.txt\nnc: 3\nnames:\n  - car\n  - cat\n  - cow\n",
        "path: ./images/..\ntrain: nowhere\nval: list.txt\nnames: [car, cat, cow]\ndownload: echo\n",
    ],
)
def test_data_yaml_takes_the_forms_of_yolov5(yolo: Path, text: str) -> None:
    (yolo / "list.txt").write_text("./images/a.png\n\nimages/b.png\n")
    (yolo / "data.yaml").write_text(text)
    dataset = open_yolo(yolo / "data.yaml", "val")
    assert [dataset.sample_id(index) for index in range(2)] == ["images/a.png", "images/b.png"]
    assert len(dataset.sample(0).target) == 2


def test_a_folder_and_a_list_need_no_data_yaml(yolo: Path) -> None:
    (yolo / "list.txt").write_text("./images/b.png\nimages/a.png\n")
    assert open_yolo(yolo / "list.txt").strata(1) == {"cat", "car"}
    assert open_yolo(yolo / "images").sample_id(0) == "a.png"
    assert open_yolo(yolo / "images", names=()).strata(0) == {"1", "0"}


def test_labels_may_lie_beside_the_images(tmp_path: Path) -> None:
    write_image(tmp_path / "shots" / "a.png")
    (tmp_path / "shots" / "a.txt").write_text("0 0.5 0.5 1 1\n")
    assert open_yolo(tmp_path / "shots").sample(0).target.boxes.tolist() == [[0, 0, 40, 20]]


def test_only_the_last_images_folder_is_exchanged(tmp_path: Path) -> None:
    write_image(tmp_path / "images" / "x" / "images" / "train" / "a.png")
    label = tmp_path / "images" / "x" / "labels" / "train" / "a.txt"
    label.parent.mkdir(parents=True)
    label.write_text("0 0.5 0.5 1 1\n")
    assert len(open_yolo(tmp_path / "images" / "x").sample(0).target) == 1


def test_a_polygon_becomes_the_box_around_it(yolo: Path) -> None:
    write_label(yolo, "2 0.1 0.2 0.5 0.9 0.3 0.4\n")
    boxes = open_yolo(yolo / "data.yaml", "val").sample(0).target.boxes
    assert boxes == pytest.approx(np.array([[4, 4, 20, 18]]))


def test_a_repeated_label_counts_once(yolo: Path) -> None:
    write_label(yolo, "1 0.5 0.5 0.5 0.5\n1 0.50 0.5 0.5 0.5\n")
    assert len(open_yolo(yolo / "data.yaml", "val").sample(0).target) == 1


def test_a_box_may_stick_out_by_rounding(yolo: Path) -> None:
    write_label(yolo, "1 0.9 0.5 0.201 0.5\n")
    assert len(open_yolo(yolo / "data.yaml", "val").sample(0).target) == 1


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("1 0.5 0.5 0.5", "has 4 columns"),
        ("1 0.5 0.5 0.5 0.5 0.9", "has 6 columns"),
        ("1 0.5 0.5 0.5 wide", "'wide' is not a number"),
        ("1 0.5 nan 0.5 0.5", "'nan' is not a number"),
        ("99 0.5 0.5 0.5 0.5", "class 99 does not exist; expected 0 to 2"),
        ("-1 0.5 0.5 0.5 0.5", "class -1 does not exist"),
        ("0.5 0.5 0.5 0.5 0.5", "class 0.5 does not exist"),
        ("1 0.9 0.5 0.5 0.5", "the box is outside the image: x 0.65 to 1.15, y 0.25 to 0.75"),
        ("1 20 10 5 5", "the box is outside the image"),
        ("1 0.5 0.5 0 0.5", "the box has no area"),
        ("1 0.5 0.5 -0.5 0.5", "the box has no area"),
    ],
)
def test_a_wrong_label_is_an_error_with_file_and_line(yolo: Path, line: str, message: str) -> None:
    write_label(yolo, f"0 0.5 0.5 0.5 0.5\n\n{line}\n")
    assert yolo_error(yolo).startswith(f"labels/a.txt:3: {message}")


def test_labels_that_are_not_text_are_an_error(yolo: Path) -> None:
    (yolo / "labels" / "a.txt").write_bytes(b"\xff\xfe\x00")
    assert yolo_error(yolo).startswith("labels/a.txt: cannot be read as text")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("val: [images\nnames: x", "data.yaml:2: is not YAML"),
        ("- images", "data.yaml: is not a YOLOv5 data file"),
        ("train: images\nnames: [car, cat, cow]", "data.yaml: has no split 'val' .* it has: train"),
        ("val: 3\nnames: [car, cat, cow]", "data.yaml: has no split 'val'"),
        ("val: images", "data.yaml: has no names"),
        ("val: images\nnames: {0: car, 2: cow}", "data.yaml: names must number the classes 0 to 1"),
        ("val: images\nnc: 4\nnames: [car, cat, cow]", "data.yaml: nc is 4, but there are 3 names"),
        ("val: nowhere\nnames: [car, cat, cow]", "nowhere: does not exist"),
        ("val: labels\nnames: [car, cat, cow]", "labels: holds no image"),
        ("val: data.yaml\nnames: [car, cat, cow]", "data.yaml: is neither a folder of images or"),
        ("val: images\nnames: [car, cat]", "data.yaml: names 2 classes, the model has 3"),
        ("val: images\nnames: [cat, car, cow]", "data.yaml: class 0 is 'cat' here and 'car' in the model"),
    ],
)
def test_a_wrong_data_yaml_is_an_error(yolo: Path, text: str, message: str) -> None:
    (yolo / "data.yaml").write_text(text)
    error = yolo_error(yolo)
    assert re.match(message, error), error


def test_other_names_of_the_same_number_are_accepted(yolo: Path) -> None:
    assert len(open_yolo(yolo / "data.yaml", "val", names=("Auto", "Katze", "Kuh"))) == 2


def test_a_split_is_needed_with_data_yaml_and_only_there(yolo: Path) -> None:
    with pytest.raises(DataError, match=r'needs a split, e\.g\. split = "val"; this file has: val'):
        open_yolo(yolo / "data.yaml")
    with pytest.raises(DataError, match=r"split 'val' needs a data\.yaml"):
        open_yolo(yolo / "images", "val")


def test_a_missing_image_is_an_error_at_the_line_that_names_it(yolo: Path) -> None:
    (yolo / "list.txt").write_text("images/a.png\nimages/gone.png\n")
    with pytest.raises(DataError, match=r"list\.txt:2: image .*gone\.png is missing"):
        open_yolo(yolo / "list.txt")


def test_an_image_named_twice_is_an_error(yolo: Path) -> None:
    (yolo / "list.txt").write_text("images/a.png\n./images/../images/a.png\n")
    with pytest.raises(DataError, match=r"list\.txt:2: image .*a\.png is named twice"):
        open_yolo(yolo / "list.txt")


def test_an_empty_image_is_an_error_before_any_is_read(yolo: Path) -> None:
    (yolo / "images" / "b.png").write_bytes(b"")
    assert yolo_error(yolo).startswith("images/b.png: the image file is empty (0 bytes)")


def test_an_empty_list_is_an_error(yolo: Path) -> None:
    (yolo / "list.txt").write_text("\n")
    with pytest.raises(DataError, match=r"list\.txt: lists no image"):
        open_yolo(yolo / "list.txt")


def test_an_evaluation_without_labels_is_an_error_and_a_calibration_is_not(yolo: Path) -> None:
    label = write_label(yolo, "")
    assert "the evaluation set is empty" in yolo_error(yolo)
    label.unlink()
    assert "none of 2 images has labels" in yolo_error(yolo)
    calibration = open_yolo(yolo / "images", require_targets=False)
    assert calibration.strata(0) == frozenset()
    assert calibration.sample(0).input.shape == (20, 40, 3)


@pytest.mark.parametrize("name", ["a.png", "a.jpg"])
def test_an_image_that_is_cut_short_is_an_error(tmp_path: Path, name: str) -> None:
    image = write_image(tmp_path / name, 200, 200)
    image.write_bytes(image.read_bytes()[:300] if name == "a.png" else image.read_bytes()[:-900])
    dataset = open_yolo(tmp_path, require_targets=False)
    with pytest.raises(DataError, match=rf"{name}: the image is damaged"):
        dataset.sample(0)


def test_what_is_no_image_is_an_error_at_once(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"<html>not found</html>")
    with pytest.raises(DataError, match=r"a\.jpg: the image is damaged"):
        open_yolo(tmp_path, require_targets=False)


def test_an_image_that_vanishes_is_an_error(yolo: Path) -> None:
    dataset = open_yolo(yolo / "data.yaml", "val")
    (yolo / "images" / "a.png").unlink()
    for read in (dataset.sample, dataset.fingerprint):
        with pytest.raises(DataError, match=r"a\.png: the image cannot be read"):
            read(0)


def coco_document() -> dict:
    return {
        "images": [
            {"id": 7, "file_name": "b.png", "width": 40, "height": 20},
            {"id": 3, "file_name": "a.png", "width": 40, "height": 20},
        ],
        "categories": [{"id": 20, "name": "cow"}, {"id": 5, "name": "cat"}, {"id": 1, "name": "car"}],
        "annotations": [
            {"id": 1, "image_id": 3, "category_id": 20, "bbox": [5, 2, 10, 5], "area": 31.5, "iscrowd": 0},
            {"id": 2, "image_id": 3, "category_id": 5, "bbox": [0, 0, 40, 20], "area": 700, "iscrowd": 1},
        ],
    }


@pytest.fixture
def coco(tmp_path: Path) -> Path:
    write_image(tmp_path / "images" / "a.png")
    write_image(tmp_path / "images" / "b.png")
    return tmp_path


def open_coco(folder: Path, document: dict | str, *, names=CLASSES, require_targets: bool = True) -> CocoDataset:
    path = folder / "instances.json"
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    return CocoDataset.open(CocoOptions(folder / "images", path), class_names=names, require_targets=require_targets)


def coco_error(folder: Path, document: dict | str, *, names=CLASSES) -> str:
    with pytest.raises(DataError) as caught:
        open_coco(folder, document, names=names)
    assert "\n" not in str(caught.value)
    return str(caught.value).replace(f"{folder}{os.sep}", "")


def test_coco_reads_boxes_areas_and_crowds_in_order_of_image_ids(coco: Path) -> None:
    dataset = open_coco(coco, coco_document())
    target = dataset.sample(0).target
    assert dataset.sample_id(0) == "a.png"
    assert target.boxes.tolist() == [[5, 2, 15, 7], [0, 0, 40, 20]]
    assert target.classes.tolist() == [2, 1]
    assert target.areas.tolist() == [31.5, 700]
    assert target.crowd.tolist() == [False, True]
    assert len(dataset.sample(1).target) == 0
    assert dataset.strata(0) == {"cow", "cat"}


def test_coco_categories_map_by_name_or_else_by_rank(coco: Path) -> None:
    by_name = open_coco(coco, coco_document(), names=("cow", "car", "cat"))
    assert by_name.sample(0).target.classes.tolist() == [0, 2]
    by_rank = open_coco(coco, coco_document(), names=("Auto", "Katze", "Kuh"))
    assert by_rank.sample(0).target.classes.tolist() == [2, 1]
    assert open_coco(coco, coco_document(), names=()).class_names == ("car", "cat", "cow")


def test_coco_calibration_needs_no_annotations(coco: Path) -> None:
    options = CocoOptions(coco / "images")
    dataset = CocoDataset.open(options, class_names=CLASSES, require_targets=False)
    assert [dataset.sample_id(index) for index in range(2)] == ["a.png", "b.png"]
    assert dataset.sample(0).target is None
    with pytest.raises(DataError, match="images: has no annotations"):
        CocoDataset.open(options, class_names=CLASSES, require_targets=True)


def change(part: str, index: int, **changes: object) -> dict:
    document = coco_document()
    document[part][index].update(changes)
    return document


def without(part: str, index: int, key: str) -> dict:
    document = coco_document()
    del document[part][index][key]
    return document


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ('{"images": [],\n "annotations" []}', "instances.json:2: is not JSON"),
        ("[" * 100_000, "instances.json: is not COCO annotations: nested too deep"),
        ("[]", "instances.json: is not COCO annotations: expected an object with a list 'images'"),
        ({"images": [{}], "annotations": []}, "instances.json: is not COCO annotations: .* 'categories'"),
        ({**coco_document(), "images": []}, "instances.json: the set is empty: it lists no images"),
        ({**coco_document(), "annotations": []}, "instances.json: the evaluation set is empty"),
        ({**coco_document(), "annotations": [3]}, "instances.json: annotation 3 is not an object"),
        (change("annotations", 0, id=0), "instances.json: annotation id 0: .*number annotations from 1"),
        (change("annotations", 0, id=2), "instances.json: annotation id 2 is there twice"),
        (change("annotations", 0, id="x"), "instances.json: annotation: id is 'x'; expected a whole number"),
        (change("annotations", 1, image_id=99), "instances.json: annotation 2: image_id 99 is not among"),
        (change("annotations", 1, category_id=99), "instances.json: annotation 2: category_id 99 is not among"),
        (change("annotations", 1, bbox=[1, 2, 3]), r"instances.json: annotation 2: bbox is \[1, 2, 3\]; expected"),
        (change("annotations", 1, bbox=[1, 2, 3, float("nan")]), "instances.json: annotation 2: bbox is"),
        (change("annotations", 1, bbox=[1, 2, -3, 4]), "instances.json: annotation 2: its box is -3x4 pixels"),
        (change("annotations", 1, bbox=[1, 2, 3, 0]), "instances.json: annotation 2: its box is 3x0 pixels"),
        (change("annotations", 1, bbox=[30, 2, 12, 4]), "instances.json: annotation 2: .* x 30 to 42, .* outside"),
        (change("annotations", 1, bbox=[-3, 2, 12, 4]), "instances.json: annotation 2: .* outside its image, a.png"),
        (change("annotations", 1, area=-1), "instances.json: annotation 2: area is -1"),
        (change("annotations", 1, iscrowd="yes"), "instances.json: annotation 2: iscrowd is 'yes'"),
        (without("annotations", 1, "bbox"), "instances.json: annotation 2: bbox is None; expected a list"),
        (change("images", 1, id=7), "instances.json: image id 7 is there twice"),
        (without("images", 1, "file_name"), "instances.json: image 3: file_name is None; expected text"),
        (change("images", 1, file_name="b.png"), "instances.json: image .*b.png is named twice"),
        (change("images", 1, file_name="gone.png"), "instances.json: image .*gone.png is missing"),
        (change("categories", 1, name="car"), "instances.json: category 1: the name 'car' is taken"),
    ],
)
def test_wrong_coco_annotations_are_an_error(coco: Path, document: dict | str, message: str) -> None:
    error = coco_error(coco, document)
    assert re.match(message, error), error


def test_class_counts_that_differ_are_an_error_with_both_numbers(coco: Path) -> None:
    assert coco_error(coco, coco_document(), names=("car", "cat")).startswith(
        "instances.json: names 3 classes, the model has 2"
    )


def test_a_box_may_touch_the_border_and_stick_out_by_a_pixel(coco: Path) -> None:
    assert len(open_coco(coco, change("annotations", 1, bbox=[0, 0, 40.9, 20]))) == 2


def test_a_box_without_area_is_no_matter_in_calibration(coco: Path) -> None:
    document = change("annotations", 1, bbox=[1, 2, 3, 0])
    assert len(open_coco(coco, document, require_targets=False)) == 2


def test_an_image_of_another_size_than_annotated_is_an_error(coco: Path) -> None:
    write_image(coco / "images" / "a.png", 20, 40)
    dataset = open_coco(coco, coco_document())
    with pytest.raises(DataError, match=r"instances\.json: image a\.png is 20x40 pixels, .* for 40x20"):
        dataset.sample(0)


def test_real_sets_open_whole(assets: Path) -> None:
    val = open_yolo(assets / "val128" / "data.yaml", "val", names=())
    assert (len(val), len(val.class_names)) == (128, 80)
    assert sum(len(val.sample(index).target) for index in range(0, 128, 16)) > 0
    options = CocoOptions(assets / "coco128" / "images", assets / "coco128" / "instances.json")
    coco128 = CocoDataset.open(options, class_names=val.class_names, require_targets=True)
    assert len(coco128) == 128
    assert set().union(*map(coco128.strata, range(128))) <= set(val.class_names)


def test_importing_the_plugin_imports_nothing_heavy() -> None:
    code = "import sys, qgate_detection; print({'numpy', 'cv2', 'pycocotools', 'yaml', 'torch'} & set(sys.modules))"
    path = os.pathsep.join(sys.path)
    result = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "set()"
