"""The distillation loss of YOLOv5: how far a student's raw maps are from a teacher's, where it matters.

Class and box answers count by the teacher's objectness, as in Mehta and Ozturk, "Object detection at 200 frames per
second" (2018): what a cell without an object says of its box is noise. Objectness counts in every cell, for an object
that only the student sees is a false positive.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from qgate_yolov5.loss import Assignment, as_cells, complete_iou, decode

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

# Thousands of cells of background would outweigh the objects, little as each counts.
_LEAST_OBJECTNESS = 0.01


class DistillationLoss:
    """The distance of a student's raw maps from a teacher's, 0 where both say the same.

    `anchors` (levels, anchors, 2) are widths and heights in units of the level's stride.
    """

    def __init__(self, anchors: Tensor) -> None:
        self.anchors = anchors

    def __call__(self, student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
        """Compare raw maps of a batch, (images, anchors * (5 + classes), rows, columns) a level; gives a scalar.

        An image's divergences are summed and divided by the objects that the teacher sees (the sum of objectness, at
        least 1); the result is the mean over images. So halves of a batch average to the whole.
        """
        levels = [
            _level(ours, theirs.detach(), sizes.to(ours.device))
            for ours, theirs, sizes in zip(student, teacher, self.anchors, strict=True)
        ]
        divergence, objects = (torch.stack(parts).sum(0) for parts in zip(*levels, strict=True))
        return (divergence / objects.clamp(min=1)).mean()


def _level(student: Tensor, teacher: Tensor, anchors: Tensor) -> tuple[Tensor, Tensor]:
    """Give each image's divergence, and how many objects the teacher sees in it."""
    ours, theirs = as_cells(student, len(anchors)), as_cells(teacher, len(anchors))
    background = _divergence(ours[..., 4], theirs[..., 4]).flatten(1).sum(1)
    place = (theirs[..., 4].sigmoid() > _LEAST_OBJECTNESS).nonzero(as_tuple=True)
    answers, wanted = ours[place], theirs[place]
    weights = wanted[:, 4].sigmoid()
    classes = _divergence(answers[:, 5:], wanted[:, 5:]).sum(1)
    chosen = Assignment(*place)
    boxes = 1 - complete_iou(decode(answers[:, :4], chosen, anchors), decode(wanted[:, :4], chosen, anchors))
    divergence = background.index_add(0, place[0], weights * (classes + boxes))
    return divergence, torch.zeros_like(background).index_add(0, place[0], weights)


def _divergence(student: Tensor, teacher: Tensor) -> Tensor:
    """Give the Kullback-Leibler divergence of yes-or-no answers from the teacher's, both as logits, element by element.

    Cross-entropy less the teacher's own entropy.
    """
    wanted = teacher.sigmoid()
    entropy = binary_cross_entropy_with_logits(teacher, wanted, reduction="none")
    return binary_cross_entropy_with_logits(student, wanted, reduction="none") - entropy
