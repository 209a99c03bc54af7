import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from mask_reference import decoded
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from qgate.errors import DataError
from qgate_detection.coco import CocoOptions
from qgate_segmentation.coco_masks import CocoMasksDataset

HEIGHT, WIDTH = 20, 30
DISC = (np.mgrid[:HEIGHT, :WIDTH] - np.array([9, 14])[:, None, None]).__pow__(2).sum(0) < 40
COMPRESSED = {"size": [HEIGHT, WIDTH], "counts": coco_mask.encode(np.asfortranarray(DISC, np.uint8))["counts"].decode()}


def uncompressed(mask: np.ndarray) -> list[int]:
    """Count runs column by column, beginning with what is not in the mask."""
    flat = np.concatenate([[False], mask.ravel(order="F")])
    changes = np.flatnonzero(np.diff(flat.astype(int)))
    return np.diff(np.concatenate([[0], changes, [mask.size]])).tolist()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((HEIGHT, WIDTH, 3), np.uint8))
    return tmp_path


def opened(root: Path, segmentation: Any, **image: Any) -> CocoMasksDataset:
    annotation = {"id": 7, "image_id": 1, "category_id": 1, "bbox": [2, 2, 20, 15], "area": 100, "iscrowd": 0}
    document = {
        "images": [{"id": 1, "file_name": "a.png", "height": HEIGHT, "width": WIDTH, **image}],
        "annotations": [{**annotation, "segmentation": segmentation}],
        "categories": [{"id": 1, "name": "cat"}],
    }
    (root / "a.json").write_text(json.dumps(document))
    options = CocoOptions(root, root / "a.json")
    return CocoMasksDataset.open(options, class_names=("cat",), require_targets=True)


def mask_of(data: CocoMasksDataset) -> np.ndarray:
    (encoded,) = data.sample(0).target.masks.encoded()
    return decoded(encoded)


@pytest.mark.parametrize("counts", [COMPRESSED["counts"], uncompressed(DISC)], ids=["compressed", "uncompressed"])
def test_run_lengths_give_their_mask(root: Path, counts: Any) -> None:
    assert (mask_of(opened(root, {"size": [HEIGHT, WIDTH], "counts": counts})) == DISC).all()


@pytest.mark.parametrize("seed", range(5))
def test_compressed_run_lengths_of_any_mask_are_read(root: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    mask = rng.random((HEIGHT, WIDTH)) < rng.random()
    encoded = coco_mask.encode(np.asfortranarray(mask, np.uint8))
    data = opened(root, {"size": [HEIGHT, WIDTH], "counts": encoded["counts"].decode()})
    assert (mask_of(data) == mask).all()


def test_polygons_give_the_mask_that_pycocotools_makes_of_them(root: Path) -> None:
    polygons = [[2, 2, 12, 3, 8.5, 12.25], [15, 5, 25, 5, 25, 15, 15, 15, 14, 10]]
    data = opened(root, polygons)
    api = COCO()
    api.dataset = json.loads((root / "a.json").read_text())
    api.imgs = {1: api.dataset["images"][0]}
    expected = decoded(api.annToRLE(api.dataset["annotations"][0]))
    assert (mask_of(data) == expected).all()
    assert expected.sum() > 100
    target = data.sample(0).target
    assert (target.boxes.tolist(), target.areas.tolist()) == ([[2, 2, 22, 17]], [100])


@pytest.mark.parametrize(
    ("segmentation", "message"),
    [
        (None, "it has no segmentation; expected polygons or run lengths"),
        ([], "it has no segmentation"),
        ([[1, 2, 3, 4]], "a polygon of its segmentation is not x and y of three points or more"),
        ([[1, 2, 3, 4, 5, 6, 7]], "a polygon of its segmentation is not x and y"),
        ([[1, 2, 3, "4", 5, 6]], "a polygon of its segmentation is not x and y"),
        ([[1, 2, 3, 4, 5, 1e9]], "y 2 to 1e+09, leaves its image of 30x20 pixels"),
        (
            {"size": [WIDTH, HEIGHT], "counts": "x"},
            "its mask is of size [30, 20], its image of [20, 30] (height, width)",
        ),
        ({"size": [HEIGHT, WIDTH], "counts": [100, 5]}, "its run lengths add up to 105 pixels, its image has 600"),
        ({"size": [HEIGHT, WIDTH], "counts": [700, -100]}, "its run lengths (counts) are damaged"),
        ({"size": [HEIGHT, WIDTH], "counts": 7}, "its run lengths (counts) are damaged"),
        ({"size": [HEIGHT, WIDTH], "counts": "\x7f"}, "its run lengths (counts) are damaged"),
        ({"size": [HEIGHT, WIDTH], "counts": COMPRESSED["counts"] + "o"}, "its run lengths (counts) are cut short"),
        ({"size": [HEIGHT, WIDTH], "counts": COMPRESSED["counts"][:-2]}, "its run lengths"),
    ],
    ids=str,
)
def test_a_segmentation_that_cannot_be_is_named(root: Path, segmentation: Any, message: str) -> None:
    with pytest.raises(DataError) as caught:
        opened(root, segmentation)
    assert f"{root / 'a.json'}: annotation 7: " in str(caught.value)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("image", [{"height": None}, {"width": 10**9}], ids=str)
def test_masks_need_the_size_of_their_image(root: Path, image: dict[str, Any]) -> None:
    given = {key: value for key, value in image.items() if value}
    with pytest.raises(DataError, match=r"annotation 7: its image, a\.png, states no height and width|height is None"):
        opened(root, [[1, 2, 3, 4, 5, 6]], **(given or image))


def test_real_annotations(assets: Path) -> None:
    """All polygons and crowds of real images, as pycocotools reads them."""
    path = assets / "coco128" / "instances.json"
    api = COCO()
    api.dataset = json.loads(path.read_text())
    api.createIndex()
    options = CocoOptions(assets / "coco128" / "images", path)
    data = CocoMasksDataset.open(options, class_names=(), require_targets=True)
    ids = sorted(api.imgs)
    for index in (0, 40, 127):
        expected = [api.annToRLE(item) for item in api.imgToAnns[ids[index]]]
        found = data.sample(index).target.masks.encoded()
        assert [coco_mask.area(mask) for mask in found] == [coco_mask.area(mask) for mask in expected]
        assert all((decoded(one) == decoded(other)).all() for one, other in zip(found, expected, strict=True))
    assert sum(len(data.sample(index).target.masks) for index in range(0, 128, 16)) > 20
