from pathlib import Path

import cv2
import numpy as np
import pytest

from qgate.errors import DataError
from qgate_classification.image_folder import ImageFolder, ImageFolderOptions
from qgate_classification.proposal import propose_data
from qgate_classification.scores import ClassTarget

CLASSES = ("dog", "cat", "owl")  # not in the order of the folders


def write_image(path: Path, grey: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.full((4, 6, 3), grey, np.uint8))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for grey, name in enumerate(("cat/1.png", "cat/more/2.png", "dog/1.png", "owl/1.JPG")):
        write_image(tmp_path / "val" / name, grey)
    (tmp_path / "val" / ".cache").mkdir()
    (tmp_path / "val" / "dog" / "notes.txt").write_text("not an image")
    return tmp_path / "val"


def opened(root: Path, class_names: tuple[str, ...] = CLASSES, *, require_targets: bool = True) -> ImageFolder:
    return ImageFolder.open(ImageFolderOptions(root), class_names=class_names, require_targets=require_targets)


def labels_of(data: ImageFolder) -> list[tuple[str, int]]:
    return [(data.sample_id(index), data.sample(index).target.index) for index in range(len(data))]


def test_classes_are_the_models_by_name(root: Path) -> None:
    data = opened(root)
    assert labels_of(data) == [("cat/1.png", 1), ("cat/more/2.png", 1), ("dog/1.png", 0), ("owl/1.JPG", 2)]
    assert data.sample(0).target == ClassTarget(1, 3)
    assert data.sample(0).input.shape == (4, 6, 3)
    assert data.strata(2) == {"dog"}
    assert len({data.fingerprint(index) for index in range(4)}) == 4


def test_without_the_models_names_classes_are_in_the_order_of_the_folders(root: Path) -> None:
    assert [index for _, index in labels_of(opened(root, ()))] == [0, 0, 1, 2]
    assert opened(root, ()).strata(2) == {"dog"}


def test_data_may_hold_some_of_the_models_classes(root: Path) -> None:
    assert [index for _, index in labels_of(opened(root, ("fox", *CLASSES)))] == [2, 2, 1, 3]


def test_calibration_data_needs_no_labels(root: Path, tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("val/cat/1.png\nval/owl/1.JPG\n")
    for source, count in ((root / "cat", 2), (tmp_path / "list.txt", 2)):
        if source.name == "cat":
            (root / "cat" / "more" / "2.png").rename(root / "cat" / "2.png")
            (root / "cat" / "more").rmdir()
        data = opened(source, require_targets=False)
        assert [data.sample(index).target for index in range(len(data))] == [None] * count


def test_calibration_data_without_labels_may_lie_in_folders_of_any_name(tmp_path: Path) -> None:
    for name in ("2024-01/1.png", "2024-02/2.png", "3.png"):
        write_image(tmp_path / "cal" / name)
    data = opened(tmp_path / "cal", require_targets=False)
    assert [data.sample_id(index) for index in range(3)] == ["2024-01/1.png", "2024-02/2.png", "3.png"]
    assert [data.sample(index).target for index in range(3)] == [None] * 3
    with pytest.raises(DataError, match="beside the class folders"):
        opened(tmp_path / "cal")


def test_calibration_data_in_class_folders_is_labelled(root: Path) -> None:
    assert labels_of(opened(root, require_targets=False)) == labels_of(opened(root))
    (root / "owl").rename(root / "owls")
    with pytest.raises(DataError, match=r'val/owls: is no class of the model; did you mean "owl"'):
        opened(root, require_targets=False)


def test_an_image_that_is_damaged_is_named_when_it_is_read(root: Path) -> None:
    good = (root / "cat" / "1.png").read_bytes()
    (root / "cat" / "1.png").write_bytes(good[: len(good) // 2] + bytes(len(good) // 2))
    data = opened(root)
    with pytest.raises(DataError, match=r"cat/1\.png: the image is damaged or of an unknown format; restore it"):
        data.sample(0)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (
            lambda root: (root / "bee").mkdir(),
            "val/bee: is no class of the model; it has 3, from dog to owl; name each",
        ),
        (
            lambda root: (root / "cta").mkdir(),
            'val/cta: is no class of the model; did you mean "cat"? name each folder',
        ),
        (lambda root: (root / "owl" / "1.JPG").unlink(), "val/owl: holds no image"),
        (lambda root: (root / "owl" / "1.JPG").write_bytes(b""), "val/owl/1.JPG: the image file is empty (0 bytes)"),
        (lambda root: (root / "owl" / "1.JPG").write_text("x" * 99), "val/owl/1.JPG: the image is damaged"),
        (lambda root: write_image(root / "7.png"), "val/7.png: is of no class: it lies beside the class folders"),
    ],
)
def test_what_is_wrong_is_found_when_the_data_is_opened(root: Path, spoil, message: str) -> None:
    spoil(root)
    with pytest.raises(DataError) as caught:
        opened(root)
    assert message in str(caught.value)


def test_what_is_no_folder_of_classes(root: Path) -> None:
    for path in (root / "dog", root / "missing", root / "dog" / "1.png"):
        with pytest.raises(DataError, match="expected a folder that holds a folder of images for each class"):
            opened(path)


@pytest.mark.parametrize("data", [".", "val"])
def test_init_finds_the_splits(root: Path, tmp_path: Path, data: str) -> None:
    write_image(tmp_path / "train" / "cat" / "9.png")
    write_image(tmp_path / "train" / "dog" / "9.png")
    proposal = propose_data(tmp_path / data)
    assert proposal is not None
    assert proposal["data"] == {
        "format": "image_folder",
        "calibration": {"path": tmp_path / "train"},
        "evaluation": {"path": root},
    }
    assert proposal["thresholds"] == {"top1": {"max_drop": 0.13}}  # what four images can settle


def test_init_takes_one_folder_of_classes_for_both(root: Path) -> None:
    only = root.rename(root.with_name("photos"))
    proposal = propose_data(only)
    assert proposal is not None
    assert proposal["data"]["calibration"] == proposal["data"]["evaluation"] == {"path": only}


@pytest.mark.parametrize(
    "files",
    [
        ["images/train/a.png", "images/val/b.png"],
        ["val/images/a.png", "val/labels/a.txt"],
        ["train2017/a.png", "val2017/a.png", "annotations/instances_val2017.json"],
        ["val/cat/a.png", "val/dog/a.png", "val/dog/a.txt"],
        ["a.png"],
        ["data.csv"],
    ],
    ids=" ".join,
)
def test_init_leaves_other_data_to_other_plugins(files: list[str], tmp_path: Path) -> None:
    for name in files:
        write_image(tmp_path / name) if name.endswith("png") else (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "val" / "dog" / "a.txt").touch() if "val/dog/a.txt" in files else None
    assert propose_data(tmp_path) is None
    assert propose_data(tmp_path / files[0]) is None
