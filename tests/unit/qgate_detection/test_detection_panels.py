"""What reports show of detections: curves as pycocotools has them, and the images that int8 does worst on."""

from __future__ import annotations

import tracemalloc
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest
from coco_reference import coco_evaluation, random_images

from qgate.panels import Curves, Gallery
from qgate.protocols import Sample
from qgate_detection.boxes import Detections, Targets
from qgate_detection.panels import DetectionPanels

if TYPE_CHECKING:
    from collections.abc import Sequence

CLASSES = ("car", "cat", "cow", "cup")
HEIGHT, WIDTH = 100, 200
CAR, CAT = 0, 1
LEFT, RIGHT, TOP = (10, 10, 60, 60), (110, 10, 160, 60), (70, 0, 100, 30)


def detections(*rows: tuple[tuple[int, int, int, int], float, int]) -> Detections:
    boxes = np.array([row[0] for row in rows], dtype=np.float32).reshape(-1, 4)
    return Detections(
        boxes, np.array([row[1] for row in rows], np.float32), np.array([row[2] for row in rows], np.int64)
    )


def targets(*rows: tuple[tuple[int, int, int, int], int], crowd: bool = False) -> Targets:
    boxes = np.array([row[0] for row in rows], dtype=np.float64).reshape(-1, 4)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    return Targets(boxes, np.array([row[1] for row in rows], np.int64), np.full(len(rows), crowd), areas)


def read(index: int, height: int = HEIGHT, width: int = WIDTH) -> Sample:
    pixels = np.random.default_rng(index).integers(0, 255, (height, width, 3), dtype=np.uint8)
    return Sample(str(index), pixels)


def shown(images: Sequence[tuple[Detections, Detections, Any]], read: Any = read) -> dict[type, Any]:
    """Give the panels of images of float32's and int8's detections and the target, by type."""
    panels = DetectionPanels(CLASSES)
    for index, image in enumerate(images):
        panels.update(str(index), *image)
    return {type(panel): panel for panel in panels.panels(read)}


def marks_of(image: tuple[Detections, Detections, Any]) -> set[tuple[str, str, str]]:
    (picture,) = shown([image])[Gallery].pictures
    return {(mark.side, mark.state, mark.text) for mark in picture.marks}


def test_the_curves_are_those_of_pycocotools() -> None:
    float32, int8 = random_images(1, 12, len(CLASSES)), random_images(2, 12, len(CLASSES))
    labelled = [target for _, target in float32]
    images = [(one[0], other[0], target) for one, other, target in zip(float32, int8, labelled, strict=True)]

    curves = shown(images)[Curves]

    for arm, position in (("float32", 0), ("int8", 1)):
        evaluation = coco_evaluation([(image[position], image[2]) for image in images], len(CLASSES))
        precision = evaluation.eval["precision"][0, :, :, 0, -1]  # (recalls, classes) at an IoU of 0.5
        for plot in curves.plots:
            (line,) = [line for line in plot.lines if line.arm == arm]
            expected = precision[:, CLASSES.index(plot.title)] if plot.title in CLASSES else precision.mean(axis=1)
            assert np.allclose(line.y, expected, atol=1e-4), (arm, plot.title)
            assert line.x == tuple(np.linspace(0, 1, 101))
    assert curves.plots[0].title == "all 4 classes"
    assert len(curves.plots) > 1


def test_classes_are_ordered_by_what_int8_loses() -> None:
    rows = [(LEFT, 0.9, CAR)] * 1 + [(RIGHT, 0.9, CAT)]
    lost_cat = detections(rows[0])
    images = [(detections(*rows), lost_cat, targets((LEFT, CAR), (RIGHT, CAT)))] * 6

    curves = shown(images)[Curves]

    assert [plot.title for plot in curves.plots] == ["all 2 classes", "cat"]


def test_every_mark_says_which_arm_found_it() -> None:
    image = (
        detections((LEFT, 0.9, CAR), (RIGHT, 0.8, CAT)),
        detections((LEFT, 0.7, CAR), (TOP, 0.6, CAR)),
        targets((LEFT, CAR), (RIGHT, CAT), ((0, 70, 30, 95), CAR)),
    )

    assert marks_of(image) == {
        ("float32", "both", "car 0.90 → 0.70"),
        ("int8", "both", "car 0.90 → 0.70"),
        ("float32", "only float32", "cat 0.80"),
        ("int8", "only int8", "car 0.60"),
        ("target", "both", "car"),
        ("target", "only float32", "cat"),
        ("target", "missed", "car"),
    }


def test_a_picture_says_what_was_lost_and_how_much() -> None:
    image = (
        detections((LEFT, 0.9, CAR), (RIGHT, 0.8, CAT)),
        detections((LEFT, 0.7, CAR), (TOP, 0.6, CAR)),
        targets((LEFT, CAR), (RIGHT, CAT)),
    )

    (picture,) = shown([image])[Gallery].pictures

    loss = (0.9 + 0.8) - (0.7 - 0.6)
    assert picture.caption == (
        f"only float32: 1 cat; only int8: 1 car; labels only float32 finds: 1 cat (loss {loss:.2f})"
    )
    assert picture.marks[0].region == (0.05, 0.1, 0.3, 0.6)


def test_a_score_that_falls_below_the_limit_is_no_detection_lost() -> None:
    image = (detections((LEFT, 0.26, CAR)), detections((LEFT, 0.24, CAR)), targets((LEFT, CAR)))

    assert ("float32", "both", "car 0.26 → 0.24") in marks_of(image)


def test_the_greatest_loss_comes_first_and_what_lost_nothing_does_not_come() -> None:
    def image(score: float) -> tuple[Detections, Detections, Targets]:
        return detections((LEFT, 0.9, CAR)), detections((LEFT, score, CAR)), targets((LEFT, CAR))

    gallery = shown([image(0.9), image(0.8), image(0.3), image(0.95), image(0.5)])[Gallery]

    assert [picture.name for picture in gallery.pictures] == ["2", "4", "1"]


def test_of_many_images_only_the_worst_are_kept_wherever_they_are() -> None:
    def image(score: float) -> tuple[Detections, Detections, Targets]:
        return detections((LEFT, 0.9, CAR)), detections((LEFT, score, CAR)), targets((LEFT, CAR))

    images = [image(0.8)] * 512
    for index, score in ((3, 0.5), (255, 0.3), (256, 0.4), (511, 0.6)):
        images[index] = image(score)
    gallery = shown(images)[Gallery]

    equals = [index for index in range(512) if index not in (3, 255, 256, 511)]
    assert [picture.name for picture in gallery.pictures] == [str(i) for i in (255, 256, 3, 511, *equals[:16])]


def test_images_that_are_not_among_the_worst_are_not_held() -> None:
    panels = DetectionPanels(CLASSES)
    tracemalloc.start()
    try:
        held = [_memory_with(512, panels) for _ in range(3)]
    finally:
        tracemalloc.stop()

    assert held[2] - held[1] < 512 * 500  # bytes: metrics keep some; an image's arrays alone take 2,000


def _memory_with(count: int, panels: DetectionPanels) -> int:
    for index in range(count):
        image = detections((LEFT, 0.9, CAR)), detections((LEFT, 0.8, CAR)), targets((LEFT, CAR))
        panels.update(str(index), *image)
    return tracemalloc.get_traced_memory()[0]


def test_detections_in_a_crowd_count_neither_way() -> None:
    image = (detections((LEFT, 0.9, CAR)), detections((LEFT, 0.3, CAR)), targets((LEFT, CAR), crowd=True))

    assert Gallery not in shown([image])


def test_without_labels_float32_is_the_target() -> None:
    image = (detections((LEFT, 0.9, CAR)), detections(), None)

    panels = shown([image])

    (picture,) = panels[Gallery].pictures
    assert Curves not in panels
    assert picture.caption == "only float32: 1 car (loss 0.90)"
    assert {mark.side for mark in picture.marks} == {"float32"}


@pytest.mark.parametrize("prediction", [3, None, np.zeros(3)])
def test_other_predictions_are_left_alone(prediction: object) -> None:
    assert shown([(prediction, prediction, 1)]) == {}  # type: ignore[list-item]


def test_an_input_that_is_no_picture_is_not_shown() -> None:
    image = (detections((LEFT, 0.9, CAR)), detections(), targets((LEFT, CAR)))

    panels = shown([image], lambda index: Sample(str(index), np.zeros((3, 8, 8), np.float32)))

    assert Gallery not in panels


def test_twenty_large_pictures_of_noise_stay_small() -> None:
    image = (detections((LEFT, 0.9, CAR)), detections(), targets((LEFT, CAR)))

    gallery = shown([image] * 25, lambda index: read(index, 900, 1200))[Gallery]

    assert len(gallery.pictures) == 20
    assert sum(len(picture.content) for picture in gallery.pictures) < 3_600_000
    pixels = cv2.imdecode(np.frombuffer(gallery.pictures[0].content, np.uint8), cv2.IMREAD_COLOR)
    assert pixels is not None
    assert pixels.shape == (480, 640, 3)
    assert (gallery.pictures[0].width, gallery.pictures[0].height) == (1200, 900)
