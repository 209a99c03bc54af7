from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from qgate.errors import DataError
from qgate_segmentation.index_png import IndexPngDataset, IndexPngOptions
from qgate_segmentation.label_map import NO_CLASS
from qgate_segmentation.proposal import propose_data

CLASSES = ("ground", "road", "sky")
LABELS = np.array([[0, 1, 2], [2, NO_CLASS, 0]], dtype=np.uint8)


def write(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for index, name in enumerate(("a", "more/b")):
        write(tmp_path / f"images/{name}.jpg", np.full((2, 3, 3), index, np.uint8))
        write(tmp_path / f"masks/{name}.png", LABELS)
    return tmp_path


def opened(root: Path, *, images: str = "images", masks: str | None = "masks", require_targets: bool = True):
    options = IndexPngOptions(root / images, root / masks if masks else None)
    return IndexPngDataset.open(options, class_names=CLASSES, require_targets=require_targets)


def test_each_image_has_its_mask(root: Path) -> None:
    data = opened(root)
    assert [data.sample_id(index) for index in range(len(data))] == ["a.jpg", "more/b.jpg"]
    assert data.sample(1).target.labels.tolist() == LABELS.tolist()
    assert data.sample(1).input.shape == (2, 3, 3)
    assert data.strata(0) == set(CLASSES)


def test_a_palette_is_not_taken_for_colours(root: Path) -> None:
    """As PASCAL VOC has its masks."""
    picture = Image.fromarray(LABELS, mode=None).convert("P")
    picture.putpalette(np.random.default_rng(0).integers(0, 256, 768, dtype=np.uint8).tobytes())
    picture.putdata(LABELS.ravel().tolist())
    picture.save(root / "masks" / "a.png")
    assert cv2.imread(str(root / "masks" / "a.png"), cv2.IMREAD_UNCHANGED).ndim == 3, "OpenCV gives colours"
    assert opened(root).sample(0).target.labels.tolist() == LABELS.tolist()


def test_a_mask_of_one_bit_is_read(root: Path) -> None:
    write(root / "masks" / "a.png", LABELS == 1)
    assert opened(root).sample(0).target.labels.tolist() == [[0, 1, 0], [0, 0, 0]]


def test_a_list_of_images_has_masks_by_their_names(root: Path) -> None:
    (root / "val.txt").write_text("images/a.jpg\n")
    data = opened(root, images="val.txt")
    assert len(data) == 1
    assert data.sample(0).target.labels.shape == (2, 3)


def test_images_that_would_share_a_mask_are_named(root: Path) -> None:
    write(root / "images/other/a.jpg", np.zeros((2, 3, 3), np.uint8))
    (root / "val.txt").write_text("images/a.jpg\nimages/other/a.jpg\n")
    with pytest.raises(
        DataError, match=r"masks/a\.png: images images/a.jpg and images/other/a.jpg would share one mask"
    ):
        opened(root, images="val.txt")
    write(root / "images/more/b.png", np.zeros((2, 3, 3), np.uint8))
    write(root / "masks/other/a.png", LABELS)
    with pytest.raises(DataError, match=r"masks/more/b\.png: images more/b.jpg and more/b.png would share one mask"):
        opened(root)


def test_calibration_needs_no_masks(root: Path) -> None:
    data = opened(root, masks=None, require_targets=False)
    assert [data.sample(index).target for index in range(2)] == [None, None]
    with pytest.raises(DataError, match=r'images: has no masks; add masks = "FOLDER", with a PNG for each image'):
        opened(root, masks=None)


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        (LABELS.T, "masks/a.png: the mask is 2x3 pixels, its image 3x2; was one resized, or turned by"),
        (
            LABELS + np.uint8(1),
            "masks/a.png: the pixel in row 0, column 2 is 3; expected 0 to 2, the model's classes, ",
        ),
        (np.stack([LABELS] * 3, 2), "masks/a.png: the mask is of mode RGB; expected one channel of class indices"),
        (LABELS.astype(np.uint16), "masks/a.png: the mask is of mode I;16; expected one channel"),
    ],
    ids=["size", "class", "colours", "16 bit"],
)
def test_a_mask_that_does_not_fit_is_named(root: Path, pixels: np.ndarray, message: str) -> None:
    write(root / "masks" / "a.png", np.ascontiguousarray(pixels))
    data = opened(root)
    with pytest.raises(DataError) as caught:
        data.sample(0)
    assert message in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"P5 2 2 255 xxxx", None], ids=["empty", "another format", "cut short"])
def test_a_damaged_mask_is_named(root: Path, content: bytes | None) -> None:
    path = root / "masks" / "a.png"
    write(path, LABELS)
    path.write_bytes(path.read_bytes()[:-30] if content is None else content)
    with pytest.raises(DataError, match=r"masks/a\.png: the mask is damaged, or no PNG") as caught:
        opened(root).sample(0)
    assert "\n" not in str(caught.value)


def test_an_image_without_a_mask_is_named(root: Path) -> None:
    (root / "masks" / "a.png").unlink()
    with pytest.raises(DataError, match=r"images/a\.jpg: has no mask; expected .*masks/a\.png"):
        opened(root)
    (root / "masks" / "more" / "b.png").unlink()
    with pytest.raises(DataError, match=r"images/a\.jpg: has no mask, nor have 1 other images theirs; expected"):
        opened(root)


@pytest.mark.parametrize("layout", ["{kind}/{split}", "{split}/{kind}"])
def test_init_finds_the_splits(layout: str, tmp_path: Path) -> None:
    for split in ("train", "val"):
        for kind, suffix in (("images", "jpg"), ("masks", "png")):
            write(tmp_path / layout.format(kind=kind, split=split) / f"a.{suffix}", LABELS)
    proposal = propose_data(tmp_path)
    assert proposal is not None
    expected = {
        name: {kind: tmp_path / layout.format(kind=kind, split=split) for kind in ("images", "masks")}
        for name, split in (("calibration", "train"), ("evaluation", "val"))
    }
    assert proposal == {
        "data": {"format": "index_png", **expected},
        "thresholds": {"miou": {"max_drop": 0.25}},  # what one image can settle
        "num_evaluation_samples": 1,
    }


def test_init_takes_one_set_for_both_and_leaves_other_data_alone(root: Path) -> None:
    proposal = propose_data(root)
    assert proposal is not None
    assert proposal["data"]["calibration"] == proposal["data"]["evaluation"]
    assert propose_data(root / "images") is None
    assert propose_data(root / "images" / "a.jpg") is None
