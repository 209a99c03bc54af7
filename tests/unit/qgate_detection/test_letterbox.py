import numpy as np
import pytest

from qgate_detection.letterbox import letterbox


@pytest.mark.parametrize(
    ("height", "width", "expected"),
    [
        (480, 640, (640, 480, 0, 80)),
        (333, 500, (640, 426, 0, 107)),
        (427, 640, (640, 427, 0, 106)),  # the odd row of padding goes below
        (640, 481, (481, 640, 79, 0)),
        (1, 1000, (640, 1, 0, 319)),
        (64, 32, (320, 640, 160, 0)),
    ],
)
def test_an_image_lies_in_the_middle(height: int, width: int, expected: tuple[int, int, int, int]) -> None:
    square, placement = letterbox(np.full((height, width, 3), 7, np.uint8), 640)
    resized_width, resized_height, left, top = expected
    inside = np.full((640, 640), 114)
    inside[top : top + resized_height, left : left + resized_width] = 7
    assert (square == inside[:, :, None]).all()
    assert (placement.width, placement.height) == (width, height)


def test_boxes_come_back_to_where_they_were() -> None:
    _, placement = letterbox(np.zeros((300, 400, 3), np.uint8), 640)
    original = np.array([[10, 20, 300, 250], [0, 0, 400, 300]])
    in_square = original * 1.6 + [0, 80, 0, 80]
    assert placement.undo(in_square) == pytest.approx(original, abs=1e-4)


def test_boxes_are_clipped_to_the_image() -> None:
    _, placement = letterbox(np.zeros((300, 400, 3), np.uint8), 640)
    undone = placement.undo(np.array([[-50, 0, 700, 640]]))
    assert undone.tolist() == [[0, 0, 400, 300]]
    assert undone.dtype == np.float32


def test_an_image_without_boxes_gives_none() -> None:
    _, placement = letterbox(np.zeros((300, 400, 3), np.uint8), 640)
    assert placement.undo(np.zeros((0, 4))).shape == (0, 4)


def test_a_gradient_keeps_its_place() -> None:
    ramp = np.tile(np.arange(200, dtype=np.uint8)[None, :, None], (100, 1, 3))
    square, placement = letterbox(ramp, 400)
    row = square[200, :, 0].astype(float)
    x = placement.undo(np.array([[k + 0.5, 0, k + 0.5, 0] for k in range(400)]))[:, 0]
    assert row == pytest.approx(np.clip(x - 0.5, 0, 199), abs=1)
