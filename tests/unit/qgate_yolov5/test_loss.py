from __future__ import annotations

import math

import pytest
import torch
from torch.nn.functional import softplus

from qgate_yolov5.loss import DetectionLoss, LossWeights, assign, complete_iou, decode

ONE_LEVEL_ANCHORS = torch.tensor([[[16.0, 16.0], [64.0, 64.0]]])


def cells_of(box: tuple[float, float, float, float]) -> set[tuple[int, int]]:
    chosen = assign(torch.tensor([box]), torch.tensor([[2.0, 2.0]]), rows=8, columns=10)
    return set(zip(chosen.row.tolist(), chosen.column.tolist(), strict=True))


@pytest.mark.parametrize(
    ("centre", "expected"),
    [
        pytest.param((3.2, 5.7), {(5, 3), (5, 2), (6, 3)}, id="left-and-below"),
        pytest.param((3.8, 5.1), {(5, 3), (5, 4), (4, 3)}, id="right-and-above"),
        pytest.param((0.2, 0.3), {(0, 0)}, id="corner-has-no-neighbours"),
        pytest.param((9.9, 7.9), {(7, 9)}, id="last-corner-has-no-neighbours"),
        pytest.param((3.5, 5.5), {(5, 3)}, id="mid-cell-is-its-own"),
    ],
)
def test_a_box_is_answered_by_its_cell_and_the_nearest_neighbours(
    centre: tuple[float, float], expected: set[tuple[int, int]]
) -> None:
    assert cells_of((*centre, 2.0, 2.0)) == expected


@pytest.mark.parametrize(
    ("shape", "matches"),
    [((2.0, 2.0), True), ((7.9, 2.0), True), ((8.1, 2.0), False), ((2.0, 0.51), True), ((2.0, 0.49), False)],
)
def test_an_anchor_answers_only_within_a_factor_of_four(shape: tuple[float, float], matches: bool) -> None:
    assert bool(cells_of((3.5, 5.5, *shape))) is matches


def test_every_chosen_cell_can_decode_the_box_that_it_answers_for() -> None:
    generator = torch.Generator().manual_seed(0)
    boxes = torch.rand(200, 4, generator=generator) * 8 + 0.01
    anchors = torch.tensor([[1.0, 2.0], [3.0, 3.0], [6.0, 4.0]])
    chosen = assign(boxes, anchors, rows=9, columns=9)
    wanted = boxes[chosen.target]
    corner = torch.stack((chosen.column, chosen.row), -1)
    logits = torch.cat(
        (
            torch.logit((wanted[:, :2] - corner + 0.5) / 2),
            torch.logit((wanted[:, 2:] / anchors[chosen.anchor]).sqrt() / 2),
        ),
        -1,
    )
    assert len(chosen.target) > 200
    torch.testing.assert_close(decode(logits, chosen, anchors), wanted, rtol=1e-3, atol=1e-4)


def scalar_ciou(first: tuple[float, ...], second: tuple[float, ...]) -> float:
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


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ((4, 4, 2, 2), (4, 4, 2, 2)),
        ((4, 4, 2, 2), (5, 4.5, 2, 3)),
        ((1, 1, 1, 4), (7, 7, 4, 1)),
        ((4, 4, 6, 1), (4, 4, 1, 6)),
    ],
)
def test_complete_iou_equals_the_formula_of_its_paper(first: tuple[float, ...], second: tuple[float, ...]) -> None:
    value = complete_iou(torch.tensor([first], dtype=torch.float64), torch.tensor([second], dtype=torch.float64))
    assert value.item() == pytest.approx(scalar_ciou(first, second), abs=1e-6)


def test_without_targets_only_objectness_costs() -> None:
    output = torch.full((2, 2 * 8, 4, 4), 0.3)
    loss = DetectionLoss(ONE_LEVEL_ANCHORS, (16,), 3, LossWeights())
    terms = loss([output], torch.zeros(0, 6))
    assert terms.box.item() == terms.classification.item() == 0
    assert terms.objectness.item() == pytest.approx(softplus(torch.tensor(0.3)).item(), rel=1e-5)


def perfect_output(*, label: int) -> torch.Tensor:
    """Logits that decode to a 16 x 16 box in mid-cell (row 1, column 2) of the first anchor, and to nothing else."""
    output = torch.full((1, 2, 8, 4, 4), -12.0)
    output[0, 0, :, 1, 2] = torch.tensor([0.0, 0.0, 0.0, 0.0, 12.0, -12.0, -12.0, -12.0])
    output[0, 0, 5 + label, 1, 2] = 12.0
    return output.view(1, 16, 4, 4)


def test_a_perfect_answer_costs_nothing_and_each_fault_shows_in_its_term() -> None:
    loss = DetectionLoss(ONE_LEVEL_ANCHORS, (16,), 3, LossWeights())
    target = torch.tensor([[0.0, 1.0, 40.0, 24.0, 16.0, 16.0]])
    perfect = loss([perfect_output(label=1)], target)
    assert perfect.total.item() < 1e-4
    wrong_class = loss([perfect_output(label=2)], target)
    assert wrong_class.classification.item() > 1
    assert wrong_class.box.item() < 1e-4
    elsewhere = loss([perfect_output(label=1)], target + torch.tensor([0.0, 0.0, 0.0, 32.0, 0.0, 0.0]))
    assert elsewhere.objectness.item() > 0.1


def test_a_cell_that_two_boxes_claim_takes_its_objectness_from_the_better() -> None:
    loss = DetectionLoss(ONE_LEVEL_ANCHORS, (16,), 3, LossWeights())
    good, bad = [0.0, 1.0, 40.0, 24.0, 16.0, 16.0], [0.0, 1.0, 40.0, 24.0, 5.0, 60.0]
    output = perfect_output(label=1)
    orders = [loss([output], torch.tensor(rows)).objectness.item() for rows in ([good, bad], [bad, good])]
    assert orders[0] == orders[1] < 1e-3


def test_gradients_reach_every_logit_of_the_answering_cell_and_stay_finite() -> None:
    output = torch.zeros(1, 16, 4, 4, requires_grad=True)
    loss = DetectionLoss(ONE_LEVEL_ANCHORS, (16,), 3, LossWeights())
    loss([output], torch.tensor([[0.0, 1.0, 41.0, 23.0, 20.0, 12.0]])).total.backward()
    assert output.grad is not None
    assert output.grad.isfinite().all()
    assert (output.grad.view(2, 8, 4, 4)[0, :, 1, 2] != 0).all()


def test_weights_scale_as_published() -> None:
    scaled = LossWeights().scaled(num_levels=4, num_classes=20, image_size=1280)
    assert (scaled.box, scaled.objectness, scaled.classification) == pytest.approx((0.0375, 3.0, 0.09375))
