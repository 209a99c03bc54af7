"""Makes boxes and probabilities of the head's raw maps."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor


def decode(
    raw_maps: Sequence[Tensor],
    anchors: Tensor,
    strides: Sequence[int],
    min_objectness: float,
    num_coefficients: int = 0,
) -> Tensor:
    """Decode the raw maps of one image, where the objectness is more than `min_objectness`.

    `raw_maps` are float32 (1, anchors * (5 + classes + coefficients), H / stride, W / stride), one a level; `anchors`
    is (levels, anchors, 2) in units of the stride. Returns (candidates, 5 + classes + coefficients): the corners x1,
    y1, x2, y2 in pixels of the network's input, the objectness, the probability of each class given that there is an
    object, and the mask coefficients as they are.

    With s the sigmoid, a cell's box has its centre at (2 s(xy) - 0.5 + cell) * stride, and is (2 s(wh))**2 * anchor in
    size. Objectness is looked at first: of 25,200 cells few hundred hold anything, and the rest need no decoding.
    """
    levels = zip(raw_maps, anchors, strides, strict=True)
    return torch.cat(
        [_decode_level(raw[0], sizes, stride, min_objectness, num_coefficients) for raw, sizes, stride in levels]
    )


def _decode_level(raw: Tensor, anchors: Tensor, stride: int, min_objectness: float, num_coefficients: int) -> Tensor:
    cells = raw.unflatten(0, (len(anchors), -1))
    anchor, row, column = (cells[:, 4].sigmoid() > min_objectness).nonzero(as_tuple=True)
    found = cells[anchor, :, row, column]
    end = found.shape[1] - num_coefficients
    values = found[:, :end].sigmoid()
    centres = (values[:, 0:2] * 2 - 0.5 + torch.stack((column, row), 1)) * stride
    halves = (values[:, 2:4] * 2) ** 2 * (anchors[anchor] * (stride / 2))
    return torch.cat((centres - halves, centres + halves, values[:, 4:], found[:, end:]), 1)
