"""The losses of YOLOv5 once more, in plain Python: one box, one anchor, one cell at a time."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

Box = tuple[float, float, float, float]
# One level's answers, by image, anchor, answer, row, column.
Level = list[Any]

BALANCE = (4.0, 1.0, 0.4)


class Head(NamedTuple):
    """Anchors in cells, one list of (width, height) a level; strides; the number of classes; the side of an image."""

    anchors: list[list[tuple[float, float]]]
    strides: tuple[int, ...]
    num_classes: int
    image_size: int


def supervised(head: Head, levels: list[Level], targets: list[list[float]]) -> float:
    """Compute the published loss: `targets` are image, class, centre x, centre y, width, height in pixels."""
    total = 0.0
    for cells, anchors, stride, balance in zip(levels, head.anchors, head.strides, BALANCE, strict=True):
        rows, columns = len(cells[0][0][0]), len(cells[0][0][0][0])
        overlaps: list[float] = []
        mistakes: list[float] = []
        wanted: dict[tuple[int, int, int, int], float] = {}
        for image, label, *pixels in targets:
            x, y, width, height = (side / stride for side in pixels)
            for index, anchor in enumerate(anchors):
                ratios = (width / anchor[0], height / anchor[1])
                if max(max(ratio, 1 / ratio) for ratio in ratios) >= 4:
                    continue
                for row, column in answering(x, y, rows, columns):
                    answer = [cells[int(image)][index][k][row][column] for k in range(5 + head.num_classes)]
                    overlap = ciou(box_of(answer, row, column, anchor), (x, y, width, height))
                    overlaps.append(overlap)
                    place = (int(image), index, row, column)
                    wanted[place] = max(wanted.get(place, 0), overlap, 0)
                    mistakes += [cross_entropy(answer[5 + k], k == label) for k in range(head.num_classes)]
        if overlaps:
            total += 0.05 * sum(1 - overlap for overlap in overlaps) / len(overlaps)
            total += 0.5 * head.num_classes / 80 * sum(mistakes) / len(mistakes)
        objectness = [
            cross_entropy(cells[image][index][4][row][column], wanted.get((image, index, row, column), 0))
            for image in range(len(cells))
            for index in range(len(anchors))
            for row in range(rows)
            for column in range(columns)
        ]
        total += (head.image_size / 640) ** 2 * balance * sum(objectness) / len(objectness)
    return total


def distillation(head: Head, student: list[Level], teacher: list[Level]) -> float:
    """Compute the mean over images of what divergences come to, per object that the teacher sees."""
    values = []
    for image in range(len(student[0])):
        divergence = objects = 0.0
        for ours, theirs, anchors in zip(student, teacher, head.anchors, strict=True):
            for index, anchor in enumerate(anchors):
                for row in range(len(ours[0][0][0])):
                    for column in range(len(ours[0][0][0][0])):
                        answer, wanted = (
                            [level[image][index][k][row][column] for k in range(5 + head.num_classes)]
                            for level in (ours, theirs)
                        )
                        seen = sigmoid(wanted[4])
                        divergence += kullback_leibler(answer[4], wanted[4])
                        if seen > 0.01:
                            objects += seen
                            boxes = (box_of(one, row, column, anchor) for one in (answer, wanted))
                            divergence += seen * (1 - ciou(*boxes))
                            divergence += seen * sum(map(kullback_leibler, answer[5:], wanted[5:]))
        values.append(divergence / max(objects, 1))
    return sum(values) / len(values)


def answering(x: float, y: float, rows: int, columns: int) -> list[tuple[int, int]]:
    """List the cells that answer for a centre: its own, and its neighbours towards the nearer sides."""
    row, column = int(y), int(x)
    found = [(row, column)]
    if x % 1 < 0.5 and column > 0:
        found.append((row, column - 1))
    if x % 1 > 0.5 and column < columns - 1:
        found.append((row, column + 1))
    if y % 1 < 0.5 and row > 0:
        found.append((row - 1, column))
    if y % 1 > 0.5 and row < rows - 1:
        found.append((row + 1, column))
    return found


def box_of(answer: list[float], row: int, column: int, anchor: tuple[float, float]) -> Box:
    x, y, width, height = map(sigmoid, answer[:4])
    return (
        2 * x - 0.5 + column,
        2 * y - 0.5 + row,
        (2 * width) ** 2 * anchor[0],
        (2 * height) ** 2 * anchor[1],
    )


def ciou(first: Box, second: Box) -> float:
    """Compute the Complete IoU of two boxes: centre x, centre y, width, height."""
    (x1, y1, w1, h1), (x2, y2, w2, h2) = first, second
    width = min(x1 + w1 / 2, x2 + w2 / 2) - max(x1 - w1 / 2, x2 - w2 / 2)
    height = min(y1 + h1 / 2, y2 + h2 / 2) - max(y1 - h1 / 2, y2 - h2 / 2)
    shared = max(width, 0) * max(height, 0)
    iou = shared / (w1 * h1 + w2 * h2 - shared)
    hull_width = max(x1 + w1 / 2, x2 + w2 / 2) - min(x1 - w1 / 2, x2 - w2 / 2)
    hull_height = max(y1 + h1 / 2, y2 + h2 / 2) - min(y1 - h1 / 2, y2 - h2 / 2)
    distance = ((x1 - x2) ** 2 + (y1 - y2) ** 2) / (hull_width**2 + hull_height**2)
    aspect = 4 / math.pi**2 * (math.atan(w1 / h1) - math.atan(w2 / h2)) ** 2
    return iou - distance - (aspect**2 / (1 - iou + aspect) if aspect else 0)


def sigmoid(logit: float) -> float:
    return 1 / (1 + math.exp(-logit))


def cross_entropy(logit: float, wanted: float) -> float:
    return -wanted * math.log(sigmoid(logit)) - (1 - wanted) * math.log(sigmoid(-logit))


def kullback_leibler(student: float, teacher: float) -> float:
    p, q = sigmoid(teacher), sigmoid(student)
    return p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q))
