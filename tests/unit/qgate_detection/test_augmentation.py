"""Training pictures: boxes move with their pixels, and everything comes from the generator."""

from __future__ import annotations

import colorsys
from typing import TYPE_CHECKING

import numpy as np
import pytest

from qgate.protocols import Sample
from qgate_detection.augmentation import Augmentation, Picture, make_pictures
from qgate_detection.boxes import Targets
from qgate_detection.letterbox import letterbox

if TYPE_CHECKING:
    from numpy.typing import NDArray

SIZE = 128
GROUND = (20, 20, 20)
COLOURS = ((250, 60, 60), (60, 250, 60), (60, 60, 250), (250, 250, 60))
UNCHANGED = {"flip": 0.0, "scale": 0.0, "translate": 0.0, "hue": 0.0, "saturation": 0.0, "value": 0.0}


def targets(boxes: list[tuple[int, int, int, int]], classes: list[int], *, crowd: bool = False) -> Targets:
    corners = np.array(boxes, np.float64).reshape(-1, 4)
    areas = (corners[:, 2:] - corners[:, :2]).prod(1)
    return Targets(corners, np.array(classes, np.int64), np.full(len(boxes), crowd), areas)


def painted(index: int, *, crowd: bool = False) -> Sample:
    """Two boxes on dark ground, both filled with the colour of their class."""
    height, width = ((90, 160), (200, 120), (128, 128), (60, 61))[index]
    image = np.full((height, width, 3), GROUND, np.uint8)
    boxes = [
        (width // 10, height // 8, width // 2, height // 2),
        (width * 6 // 10, height * 6 // 10, width * 9 // 10, height - 2),
    ]
    for left, top, right, bottom in boxes:
        image[top:bottom, left:right] = COLOURS[index]
    return Sample(str(index), image, targets(boxes, [index, index], crowd=crowd))


SAMPLES = [painted(index) for index in range(4)]


def make(seed: int, **options: float) -> list[Picture]:
    return make_pictures(SAMPLES, SIZE, Augmentation(**{**UNCHANGED, **options}), np.random.default_rng(seed))


def covered(picture: Picture, index: int, margin: int) -> NDArray[np.bool_]:
    """Mark what the boxes of a class cover, each made larger by a margin."""
    mask = np.zeros(picture.pixels.shape[:2], bool)
    for left, top, right, bottom in picture.boxes[picture.classes == index]:
        rows = slice(max(round(top) - margin, 0), max(round(bottom) + margin, 0))
        mask[rows, max(round(left) - margin, 0) : max(round(right) + margin, 0)] = True
    return mask


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"flip": 1.0},
        {"scale": 0.5},
        {"translate": 0.3},
        {"mosaic": 1.0},
        {"flip": 0.5, "scale": 0.5, "translate": 0.3, "mosaic": 0.5},
    ],
    ids=str,
)
def test_boxes_cover_what_they_covered(options: dict[str, float]) -> None:
    """Inside a box is its class's colour; outside is none of it, but for slivers of boxes that are dropped."""
    num_boxes = 0
    for seed in range(10):
        for picture in make(seed, **options):
            assert picture.pixels.shape == (SIZE, SIZE, 3)
            assert ((picture.boxes >= 0) & (picture.boxes <= SIZE)).all()
            for index, colour in enumerate(COLOURS):
                like = (np.abs(picture.pixels.astype(int) - colour) < 60).all(-1)
                inside = covered(picture, index, -2)
                assert like[inside].all()
                outside = (like & ~covered(picture, index, 2)).sum()
                assert outside <= 0.1 * 0.4**2 * (1.5 * SIZE) ** 2
                num_boxes += int((picture.classes == index).sum())
    assert num_boxes > 40


def test_without_changes_a_picture_is_what_inference_sees() -> None:
    for sample, picture in zip(SAMPLES, make(0), strict=True):
        square, placement = letterbox(sample.input, SIZE)
        assert (picture.pixels == square).all()
        np.testing.assert_allclose(placement.undo(picture.boxes), sample.target.boxes, atol=1e-4)
        assert picture.classes.tolist() == sample.target.classes.tolist()


def test_a_mirrored_picture_mirrors_its_boxes() -> None:
    for plain, mirrored in zip(make(0), make(0, flip=1), strict=True):
        assert (mirrored.pixels == plain.pixels[:, ::-1]).all()
        left, top, right, bottom = plain.boxes.T
        np.testing.assert_allclose(mirrored.boxes.T, [SIZE - right, top, SIZE - left, bottom])


def test_probabilities_and_shares_are_used() -> None:
    """Half of the pictures are mirrored; sizes fill the range that `scale` gives."""
    middles = [picture.boxes[0, [0, 2]].mean() for seed in range(100) for picture in make(seed, flip=0.5)[:1]]
    assert 30 < sum(middle > SIZE / 2 for middle in middles) < 70
    widths = [np.ptp(make(seed, scale=0.2)[2].boxes[0, [0, 2]]) for seed in range(100)]
    whole = np.ptp(make(0)[2].boxes[0, [0, 2]])
    assert 0.79 < min(widths) / whole < 0.82
    assert 1.18 < max(widths) / whole < 1.21


def test_the_same_generator_gives_the_same_pictures() -> None:
    options = {**vars(Augmentation(mosaic=0.5))}
    first, again, other = make(1, **options), make(1, **options), make(2, **options)
    for one, two in zip(first, again, strict=True):
        assert (one.pixels == two.pixels).all()
        assert (one.boxes == two.boxes).all()
    assert any((one.pixels != two.pixels).any() for one, two in zip(first, other, strict=True))


def test_samples_are_left_as_they_were() -> None:
    before = [(sample.input.copy(), sample.target.boxes.copy()) for sample in SAMPLES]
    make(0, **vars(Augmentation(mosaic=0.5)))
    for sample, (image, boxes) in zip(SAMPLES, before, strict=True):
        assert (sample.input == image).all()
        assert (sample.target.boxes == boxes).all()


@pytest.mark.parametrize(("kind", "channel"), [("hue", 0), ("saturation", 1), ("value", 2)])
def test_each_kind_of_colour_change_leaves_the_other_two_alone(kind: str, channel: int) -> None:
    """Judged by the standard library's conversion, in a box's colour."""
    changes = []
    for seed in range(20):
        for plain, changed in zip(make(seed), make(seed, **{kind: 0.2}), strict=True):
            column, row = plain.boxes[0].reshape(2, 2).mean(0).astype(int)
            before, after = hsv(plain.pixels[row, column]), hsv(changed.pixels[row, column])
            difference = np.array(after) - before
            difference[0] = (difference[0] + 0.5) % 1 - 0.5
            assert np.delete(difference, channel) == pytest.approx([0, 0], abs=0.02)
            changes.append(difference[channel])
    assert -0.21 < min(changes) < -0.1
    assert 0 <= max(changes) < 0.21
    assert len({round(change, 2) for change in changes}) > 8


def hsv(pixel: NDArray[np.uint8]) -> tuple[float, float, float]:
    return colorsys.rgb_to_hsv(*(float(value) / 255 for value in pixel))


def test_colours_do_not_move_boxes() -> None:
    for plain, coloured in zip(make(0), make(0, hue=0.2, saturation=0.9, value=0.9), strict=True):
        assert (plain.boxes == coloured.boxes).all()
        assert (plain.pixels != coloured.pixels).any()


def test_a_box_of_which_little_is_left_is_dropped() -> None:
    """A box that is 40 wide: shifts of up to 0.3 of 128 leave anything from all of it to a sliver."""
    image = np.zeros((SIZE, SIZE, 3), np.uint8)
    sample = Sample("left", image, targets([(0, 40, 40, 80)], [0]))
    options = Augmentation(**{**UNCHANGED, "translate": 0.3})
    rng = np.random.default_rng(0)
    left = [make_pictures([sample], SIZE, options, rng)[0].boxes for _ in range(200)]
    widths = [boxes[0, 2] - boxes[0, 0] for boxes in left if len(boxes)]
    assert 4 <= min(widths) < 8
    assert 0 < len(widths) < 200


def test_unlabelled_samples_and_crowds_give_no_boxes() -> None:
    samples = [Sample("unknown", SAMPLES[0].input), painted(1, crowd=True)]
    for mosaic in (0.0, 1.0):
        options = Augmentation(mosaic=mosaic)
        pictures = make_pictures(samples, SIZE, options, np.random.default_rng(0))
        assert [picture.boxes.shape for picture in pictures] == [(0, 4)] * 2
        assert all(picture.pixels.std() > 0 for picture in pictures)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"flip": 1.5}, "flip = 1.5; expected a number from 0 to 1"),
        ({"mosaic": -0.1}, "mosaic = -0.1; expected"),
        ({"hue": float("nan")}, "hue = nan"),
        ({"scale": 1.0}, "scale = 1 would reduce images to nothing"),
    ],
    ids=str,
)
def test_options_that_cannot_be(options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match="expected") as caught:
        Augmentation(**options)
    assert str(caught.value).startswith(message)
