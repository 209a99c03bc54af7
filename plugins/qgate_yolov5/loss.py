"""The supervised training loss of YOLOv5: which cells answer for which boxes, and what their answers cost.

Written from the published description (https://docs.ultralytics.com/yolov5/tutorials/architecture_description):
box, objectness and class terms over three scales, targets matched to anchors by shape and to up to three cells.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, one_hot

if TYPE_CHECKING:
    from collections.abc import Sequence

# A cell decodes centres from 0.5 before its left edge to 0.5 beyond its right edge: `2 * sigmoid - 0.5`.
_NEAREST, _FARTHEST = -0.5, 1.5
_MAX_SHAPE_RATIO = 4.0
_EPSILON = 1e-7  # keeps empty boxes from dividing by zero, in values and gradients
_NEIGHBOURS = ((0, 0), (-1, 0), (1, 0), (0, -1), (0, 1))
# Objectness is harder to learn on the finer levels, which have more cells; by number of levels, finest first.
_LEVEL_WEIGHTS = {3: (4.0, 1.0, 0.4), 4: (4.0, 1.0, 0.25, 0.06)}


@dataclass(frozen=True)
class LossWeights:
    """The published weights of the three terms, for 3 levels, 80 classes and images of 640 pixels."""

    box: float = 0.05
    objectness: float = 1.0
    classification: float = 0.5

    def scaled(self, num_levels: int, num_classes: int, image_size: int) -> LossWeights:
        """Adapt the weights to a model, as published: by its levels, its classes and the area of its images."""
        return LossWeights(
            self.box * 3 / num_levels,
            self.objectness * (image_size / 640) ** 2 * 3 / num_levels,
            self.classification * num_classes / 80 * 3 / num_levels,
        )


class Assignment(NamedTuple):
    """Which cells of one level answer for which targets: indices of equal length k."""

    target: Tensor
    anchor: Tensor
    row: Tensor
    column: Tensor


class LossTerms(NamedTuple):
    """The weighted terms of the loss, scalars, each a mean over the batch."""

    box: Tensor
    objectness: Tensor
    classification: Tensor

    @property
    def total(self) -> Tensor:
        """Give the sum, which is to be minimised."""
        return self.box + self.objectness + self.classification


class DetectionLoss:
    """The loss of a YOLOv5 head's raw outputs.

    `anchors` (levels, anchors, 2) are widths and heights in pixels; `strides` are pixels a cell, one a level.
    """

    def __init__(self, anchors: Tensor, strides: Sequence[int], num_classes: int, weights: LossWeights) -> None:
        self.anchors = anchors
        self.strides = tuple(strides)
        self.num_classes = num_classes
        self.weights = weights
        self.level_weights = _LEVEL_WEIGHTS.get(len(self.strides), (1.0,) * len(self.strides))

    def __call__(self, outputs: Sequence[Tensor], targets: Tensor) -> LossTerms:
        """Judge the head's convolution outputs of a batch in training mode.

        `outputs` are (images, anchors * (5 + classes), rows, columns), finest level first. `targets` is (m, 6):
        image, class, and the box's centre x, centre y, width and height in pixels of the input.
        """
        levels = zip(outputs, self.anchors, self.strides, strict=True)
        terms = [self._level(output, anchors, stride, targets) for output, anchors, stride in levels]
        box, objectness, classification = (torch.stack(term) for term in zip(*terms, strict=True))
        return LossTerms(
            self.weights.box * box.sum(),
            self.weights.objectness * (objectness * objectness.new_tensor(self.level_weights)).sum(),
            self.weights.classification * classification.sum(),
        )

    def _level(self, output: Tensor, anchors: Tensor, stride: int, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        rows, columns = output.shape[2:]
        cells = as_cells(output, len(anchors))
        anchors, boxes = anchors.to(output.device) / stride, targets[:, 2:] / stride
        chosen = assign(boxes, anchors, rows, columns)
        place = (targets[chosen.target, 0].long(), chosen.anchor, chosen.row, chosen.column)
        answers = cells[place]
        overlap = complete_iou(decode(answers[:, :4], chosen, anchors), boxes[chosen.target])
        objectness = binary_cross_entropy_with_logits(cells[..., 4], _best_overlap(cells[..., 4], place, overlap))
        if not len(answers):
            return output.new_zeros(()), objectness, output.new_zeros(())
        return (1 - overlap).mean(), objectness, self._classification(answers[:, 5:], targets[chosen.target, 1].long())

    def _classification(self, logits: Tensor, labels: Tensor) -> Tensor:
        if self.num_classes == 1:
            return logits.new_zeros(())
        wanted = one_hot(labels, self.num_classes).to(logits.dtype)
        return binary_cross_entropy_with_logits(logits, wanted)


def as_cells(output: Tensor, num_anchors: int) -> Tensor:
    """Sort raw outputs (images, anchors * (5 + classes), rows, columns) by cell: answers are the last dimension."""
    cells: Tensor = output.unflatten(1, (num_anchors, -1))
    return cells.movedim(2, -1)


def assign(boxes: Tensor, anchors: Tensor, rows: int, columns: int) -> Assignment:
    """Match boxes to the anchors and cells of one level.

    `boxes` (m, 4) are centre x, centre y, width, height and `anchors` (a, 2) width, height, all in cells. An
    anchor answers for a box where neither side differs by a factor of 4 or more; so do, for each such anchor,
    the box's own cell and those of its four neighbours that can decode the centre.
    """
    ratio = boxes[:, None, 2:] / anchors[None]
    fits = torch.maximum(ratio, 1 / ratio).amax(-1) < _MAX_SHAPE_RATIO
    neighbours = boxes.new_tensor(_NEIGHBOURS)
    cells = boxes[:, None, :2].floor() + neighbours
    offset = boxes[:, None, :2] - cells
    grid = boxes.new_tensor((columns, rows))
    reachable = ((offset > _NEAREST) & (offset < _FARTHEST) & (cells >= 0) & (cells < grid)).all(-1)
    target, anchor, neighbour = (fits[:, :, None] & reachable[:, None, :]).nonzero(as_tuple=True)
    column, row = cells[target, neighbour].long().unbind(-1)
    return Assignment(target, anchor, row, column)


def decode(logits: Tensor, chosen: Assignment, anchors: Tensor) -> Tensor:
    """Turn box logits (k, 4) of chosen cells into centre x, centre y, width, height (k, 4), in cells."""
    corner = torch.stack((chosen.column, chosen.row), -1)
    sigmoid = logits.sigmoid()
    centre = 2 * sigmoid[:, :2] - 0.5 + corner
    return torch.cat((centre, (2 * sigmoid[:, 2:]) ** 2 * anchors[chosen.anchor]), -1)


def complete_iou(first: Tensor, second: Tensor) -> Tensor:
    """Compute the Complete IoU of pairs of boxes (k, 4) as centre x, centre y, width, height; gives (k,).

    CIoU = IoU - d^2 / c^2 - a v, of Zheng et al., "Distance-IoU Loss" (2020): d between the centres, c the
    diagonal of the smallest box around both, v the difference in aspect, and a = v / (1 - IoU + v) held constant.
    """
    low_1, high_1 = first[:, :2] - first[:, 2:] / 2, first[:, :2] + first[:, 2:] / 2
    low_2, high_2 = second[:, :2] - second[:, 2:] / 2, second[:, :2] + second[:, 2:] / 2
    shared = (torch.minimum(high_1, high_2) - torch.maximum(low_1, low_2)).clamp(min=0).prod(-1)
    iou = shared / (first[:, 2:].prod(-1) + second[:, 2:].prod(-1) - shared + _EPSILON)
    diagonal = (torch.maximum(high_1, high_2) - torch.minimum(low_1, low_2)).square().sum(-1) + _EPSILON
    distance = (first[:, :2] - second[:, :2]).square().sum(-1)
    aspect = 4 / math.pi**2 * (_angle(second) - _angle(first)).square()
    with torch.no_grad():
        trade_off = aspect / (1 - iou + aspect + _EPSILON)
    return iou - distance / diagonal - trade_off * aspect


def _angle(boxes: Tensor) -> Tensor:
    return torch.atan2(boxes[:, 2], boxes[:, 3] + _EPSILON)


def _best_overlap(like: Tensor, place: tuple[Tensor, ...], overlap: Tensor) -> Tensor:
    """Spread overlaps to their cells, the greatest where several boxes claim one; 0 where none does."""
    flat = torch.zeros_like(place[0])
    for index, extent in zip(place, like.shape, strict=True):
        flat = flat * extent + index
    values = overlap.detach().clamp(min=0).to(like.dtype)
    return like.new_zeros(like.numel()).scatter_reduce(0, flat, values, "amax").view_as(like)
