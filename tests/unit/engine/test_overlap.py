from __future__ import annotations

import json
import shutil
from copy import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qgate.config.model import DataConfig, Place, SplitConfig
from qgate.engine.factory import FactoryDataset
from qgate.engine.overlap import check_overlap, fingerprints
from qgate.errors import DataError
from qgate.protocols import Sample
from qgate_detection.coco import CocoDataset
from qgate_detection.yolo import YoloDataset

DIGITS = Path(__file__).parents[3] / "examples" / "digits" / "data" / "val"
PLACE = Place(Path("qgate.toml"), 9)


def check(calibration: str, evaluation: str, max_overlap: float = 1.0) -> tuple[int, str]:
    """Check samples, whose content is a letter each."""
    split = SplitConfig("any", None, PLACE)
    return check_overlap(list(calibration), list(evaluation), DataConfig(split, split, max_overlap=max_overlap))


def test_calibration_samples_are_counted_that_are_evaluation_samples() -> None:
    assert check("abcde", "exdyz") == (
        2,
        "2 of 5 calibration samples (40%) are evaluation samples too, by content: int8's accuracy is flattered",
    )
    assert check("abc", "xyz") == (0, "")
    assert check("aab", "a")[0] == 2


@pytest.mark.parametrize(("allowed", "refused"), [(1.0, False), (0.4, False), (0.39, True), (0.0, True)])
def test_a_share_above_max_overlap_is_an_error_at_the_calibration_split(allowed: float, refused: bool) -> None:
    if not refused:
        assert check("abcde", "exdyz", allowed)[0] == 2
        return
    with pytest.raises(DataError) as caught:
        check("abcde", "exdyz", allowed)
    assert str(caught.value) == (
        "qgate.toml:9: 2 of 5 calibration samples (40%) are evaluation samples too, by content; "
        f"max_overlap allows {allowed:.0%}; calibrate on other samples"
    )


def test_no_overlap_at_all_may_be_demanded() -> None:
    assert check("abc", "xyz", 0.0) == (0, "")


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Three images as COCO has them, and the same under other names, in another order, as YOLO has them."""
    sources = sorted(DIGITS.iterdir())[:3]
    for folder in ("coco", "yolo"):
        (tmp_path / folder).mkdir()
    records = [{"id": index, "file_name": source.name} for index, source in enumerate(sources, start=1)]
    for source, name in zip(sources, ("z", "y", "x"), strict=True):
        shutil.copy(source, tmp_path / "coco")
        shutil.copy(source, tmp_path / "yolo" / f"{name}{source.suffix}")
    annotation = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 9, 9]}
    document = {"images": records, "annotations": [annotation], "categories": [{"id": 1, "name": "zero"}]}
    (tmp_path / "coco.json").write_text(json.dumps(document), encoding="utf-8")
    return tmp_path


def test_an_image_is_the_same_under_another_name_in_another_format(pictures: Path) -> None:
    coco_options: Any = CocoDataset.Options(images=pictures / "coco", annotations=pictures / "coco.json")
    yolo_options: Any = YoloDataset.Options(path=pictures / "yolo")
    coco = CocoDataset.open(coco_options, class_names=("zero",), require_targets=True)
    yolo = YoloDataset.open(yolo_options, class_names=("zero",), require_targets=False)

    ours, theirs = fingerprints(coco, range(3)), fingerprints(yolo, range(3))

    assert len(set(ours)) == 3
    assert theirs == ours[::-1]


@pytest.mark.parametrize(
    "value",
    [np.arange(6.0), {"image": np.arange(6.0), "gain": 2.0}, (np.arange(6.0), np.arange(3))],
    ids=["array", "table", "several"],
)
def test_a_factory_s_sample_is_known_by_its_input(value: Any) -> None:
    other = {"image": np.zeros(6), "gain": 2.0}

    def data(*inputs: Any) -> FactoryDataset:
        return FactoryDataset([Sample(str(id(item)), item, id(item)) for item in inputs], "m:f")

    first, second, third = fingerprints(data(value, _copy(value), other), range(3))

    assert first == second
    assert third != first


def _copy(value: Any) -> Any:
    """Copy arrays, and turn the order of keys."""
    if isinstance(value, dict):
        return {key: _copy(item) for key, item in reversed(value.items())}
    return tuple(map(_copy, value)) if isinstance(value, tuple) else copy(value)


class Broken(FactoryDataset):
    def fingerprint(self, index: int) -> str:
        raise OSError("no such device")


def test_a_sample_that_cannot_be_hashed_is_named() -> None:
    with pytest.raises(DataError, match=r"^sample 1 cannot be hashed: OSError: no such device"):
        fingerprints(Broken([1, 2], "m:f"), [1])
