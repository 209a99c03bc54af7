import math

import pytest
import torch

from qgate_yolov5.decoding import decode

ANCHORS = torch.tensor([[[1.25, 1.625], [2.0, 3.75]], [[3.625, 2.8125], [4.875, 6.1875]]])
STRIDES = (8, 16)
NUM_CLASSES = 3


def _sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value))


def _cell_by_cell(maps: list[torch.Tensor], min_objectness: float) -> list[list[float]]:
    """Decode by the published formula, one cell after the other, in Python's floats."""
    rows = []
    for raw, anchors, stride in zip(maps, ANCHORS.tolist(), STRIDES, strict=True):
        _, channels, height, width = raw.shape
        per_anchor = channels // len(anchors)
        for index, (anchor_width, anchor_height) in enumerate(anchors):
            for y in range(height):
                for x in range(width):
                    cell = raw[0, index * per_anchor : (index + 1) * per_anchor, y, x].tolist()
                    tx, ty, tw, th, objectness, *classes = map(_sigmoid, cell)
                    if objectness <= min_objectness:
                        continue
                    centre_x, centre_y = (2 * tx - 0.5 + x) * stride, (2 * ty - 0.5 + y) * stride
                    w, h = (2 * tw) ** 2 * anchor_width * stride, (2 * th) ** 2 * anchor_height * stride
                    box = [centre_x - w / 2, centre_y - h / 2, centre_x + w / 2, centre_y + h / 2]
                    rows.append([*box, objectness, *classes])
    return rows


@pytest.mark.parametrize("min_objectness", [0.0, 0.5, 1.0])
def test_cells_decode_by_the_published_formula(min_objectness: float) -> None:
    generator = torch.Generator().manual_seed(0)
    channels = 2 * (5 + NUM_CLASSES)
    maps = [torch.randn(1, channels, *shape, generator=generator) * 3 for shape in ((4, 6), (2, 3))]

    decoded = decode(maps, ANCHORS, STRIDES, min_objectness)

    expected = torch.tensor(_cell_by_cell(maps, min_objectness)).view(-1, 5 + NUM_CLASSES)
    torch.testing.assert_close(decoded, expected, rtol=1e-5, atol=1e-4)
