"""Images at a URI are read by whoever needs them, and by nobody sooner."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest

from qgate.config.binder import bind_table
from qgate.config.document import parse
from qgate.errors import ConfigError, DataError
from qgate.reporting.places import one_line
from qgate_detection.coco import CocoDataset, CocoOptions
from qgate_detection.yolo import YoloDataset, YoloOptions

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

upath = pytest.importorskip("upath", reason="universal-pathlib is not installed: pip install pytest-qgate[uri]")

IMAGES = {f"{name}.png": np.full((20, 30, 3), value, dtype=np.uint8) for name, value in (("a", 10), ("b", 200))}
LIST = "memory://set/images/b.png\nmemory://set/images/a.png\n"


@pytest.fixture
def bucket() -> Iterator[None]:
    """A COCO set in fsspec's own memory."""
    folder = upath.UPath("memory://set/images")
    folder.mkdir(parents=True, exist_ok=True)
    for name, image in IMAGES.items():
        (folder / name).write_bytes(cv2.imencode(".png", image)[1].tobytes())
    document = {
        "images": [{"id": number, "file_name": name} for number, name in enumerate(IMAGES, start=1)],
        "annotations": [{"id": 1, "image_id": 2, "category_id": 7, "bbox": [1, 2, 3, 4], "area": 12, "iscrowd": 0}],
        "categories": [{"id": 7, "name": "dot"}],
    }
    upath.UPath("memory://set/instances.json").write_text(json.dumps(document))
    yield
    folder.fs.rm("/set", recursive=True)


def options(folder: Path, kind: type, table: str) -> object:
    """Read options as a `qgate.toml` has them."""
    (folder / "options.toml").write_text(table, encoding="utf-8")
    return bind_table(parse(folder / "options.toml").root, kind)


def coco(folder: Path) -> CocoDataset:
    table = 'images = "memory://set/images"\nannotations = "memory://set/instances.json"\n'
    return CocoDataset.open(options(folder, CocoOptions, table), class_names=("dot",), require_targets=True)


def test_a_coco_set_is_read(bucket: None, tmp_path: Path) -> None:
    data = coco(tmp_path)

    sample = data.sample(1)
    assert [data.sample_id(index) for index in range(len(data))] == ["a.png", "b.png"]
    np.testing.assert_array_equal(sample.input, IMAGES["b.png"])
    np.testing.assert_array_equal(sample.target.boxes, [[1, 2, 4, 6]])
    assert data.fingerprint(0) != data.fingerprint(1)


def test_an_image_is_missed_when_it_is_read_and_named(bucket: None, tmp_path: Path) -> None:
    upath.UPath("memory://set/images/b.png").unlink()
    data = coco(tmp_path)
    data.sample(0)

    with pytest.raises(DataError) as raised:
        data.sample(1)

    assert one_line(raised.value).startswith("memory://set/images/b.png: the image cannot be read: FileNotFoundError")


@pytest.mark.parametrize("name", ["memory://set/images", "list.txt"])
def test_images_to_calibrate_on_may_be_a_folder_or_a_list(bucket: None, tmp_path: Path, name: str) -> None:
    (tmp_path / "list.txt").write_text(LIST)
    given = options(tmp_path, YoloOptions, f'path = "{name}"\n')

    data = YoloDataset.open(given, class_names=("dot",), require_targets=False)

    greys = [int(data.sample(index).input[0, 0, 0]) for index in range(len(data))]
    assert greys == ([200, 10] if name == "list.txt" else [10, 200])
    with pytest.raises(DataError, match="use format coco"):
        YoloDataset.open(given, class_names=("dot",), require_targets=True)


def test_a_path_of_this_machine_stays_what_it_was(tmp_path: Path) -> None:
    assert options(tmp_path, YoloOptions, 'path = "images"\n') == YoloOptions(tmp_path / "images")


def test_a_protocol_that_nobody_knows_is_an_error_with_its_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as raised:
        options(tmp_path, YoloOptions, '\npath = "nowhere://set/images"\n')

    assert raised.value.line == 2
    assert 'path: "nowhere://set/images": ' in str(raised.value)
