"""What the loader gives for training: batches of pictures, and two losses that agree with plain Python."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import plain_losses
import pytest
import torch
from torch import nn

from qgate.protocols import Sample
from qgate_detection.augmentation import Augmentation
from qgate_detection.coco import CocoDataset, CocoOptions
from qgate_detection.metrics import MeanAveragePrecision
from qgate_yolov5.distillation import DistillationLoss
from qgate_yolov5.loader import YoloV5Loader, YoloV5Options
from qgate_yolov5.training import SupervisedLoss

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qgate import LoadedModel

DIGITS = Path(__file__).parents[3] / "examples" / "digits"
UNCHANGED = Augmentation(flip=0, scale=0, translate=0, hue=0, saturation=0, value=0)
ANCHORS = torch.tensor([[[1.25, 1.625], [2.0, 3.75]], [[1.875, 3.8125], [3.875, 2.8125]], [[3.625, 2.8], [4.9, 6.2]]])
HEAD = plain_losses.Head([[(w, h) for w, h in level] for level in ANCHORS.tolist()], (8, 16, 32), 3, 96)
TARGETS = [
    [0, 2, 20.0, 30.0, 14.0, 30.0],
    [0, 0, 3.0, 93.0, 40.0, 52.0],
    [1, 1, 60.5, 40.1, 90.0, 70.0],
    [1, 1, 61.0, 41.0, 60.0, 75.0],
    [1, 2, 95.0, 2.0, 9.0, 8.0],
]


@pytest.fixture
def loaded() -> LoadedModel:
    return YoloV5Loader().load(YoloV5Options(DIGITS / "digits.pt", 192))


@pytest.fixture(scope="module")
def samples() -> list[Sample]:
    data = CocoDataset.open(
        CocoOptions(DIGITS / "data/train", DIGITS / "data/train.json"), class_names=(), require_targets=True
    )
    return [data.sample(index) for index in range(4)]


def raw_maps(seed: int, images: int = 2) -> list[torch.Tensor]:
    """Give random answers, most of them that there is nothing."""
    generator = torch.Generator().manual_seed(seed)
    maps = [torch.randn(images, 2 * 8, 96 // stride, 96 // stride, generator=generator) for stride in HEAD.strides]
    for one in maps:
        one.view(images, 2, 8, *one.shape[2:])[:, :, 4].mul_(3).sub_(3)
    return maps


def nested(maps: Sequence[torch.Tensor]) -> list[Any]:
    return [one.double().view(len(one), 2, 8, *one.shape[2:]).tolist() for one in maps]


def supervised_loss() -> SupervisedLoss:
    return SupervisedLoss(ANCHORS, HEAD.strides, HEAD.num_classes, HEAD.image_size)


@pytest.mark.parametrize("targets", [TARGETS, TARGETS[:1], TARGETS[2:4], []], ids=len)
def test_supervised_loss_equals_plain_python(targets: list[list[float]]) -> None:
    maps = raw_maps(1)
    loss = supervised_loss()(maps, torch.tensor(targets).view(-1, 6))
    assert loss.shape == ()
    assert loss.item() == pytest.approx(plain_losses.supervised(HEAD, nested(maps), targets), rel=1e-5)


@pytest.mark.parametrize("seeds", [(1, 2), (3, 1)], ids=str)
def test_distillation_loss_equals_plain_python(seeds: tuple[int, int]) -> None:
    student, teacher = map(raw_maps, seeds)
    loss = DistillationLoss(ANCHORS)(student, teacher)
    assert loss.shape == ()
    assert loss.item() == pytest.approx(plain_losses.distillation(HEAD, nested(student), nested(teacher)), rel=1e-5)


@pytest.mark.parametrize("far", [False, True], ids=["plausible", "far-out"])
def test_gradients_are_finite_with_and_without_boxes(far: bool) -> None:
    maps = [(one * (100 if far else 1)).requires_grad_() for one in raw_maps(1)]
    teacher = [torch.full_like(one, -30.0) for one in maps]
    losses = [
        supervised_loss()(maps, torch.zeros(0, 6)),
        supervised_loss()(maps, torch.tensor(TARGETS)),
        DistillationLoss(ANCHORS)(maps, teacher),
        DistillationLoss(ANCHORS)(maps, [-one.detach() for one in maps]),
        DistillationLoss(ANCHORS)(maps, [one.detach() for one in maps]),
    ]
    for loss in losses:
        gradients = torch.autograd.grad(loss, maps, allow_unused=True)
        assert loss.isfinite()
        assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients)


def test_a_student_that_says_the_same_costs_nothing() -> None:
    maps = raw_maps(1)
    assert DistillationLoss(ANCHORS)(maps, maps).item() == pytest.approx(0, abs=1e-5)


def test_halves_of_a_batch_average_to_the_whole() -> None:
    """So does the training of two processes to that of one."""
    student, teacher, loss = raw_maps(1, images=4), raw_maps(2, images=4), DistillationLoss(ANCHORS)
    halves = [loss([one[part] for one in student], [one[part] for one in teacher]) for part in (slice(2), slice(2, 4))]
    assert loss(student, teacher).item() == pytest.approx(sum(half.item() for half in halves) / 2, rel=1e-5)


def test_distillation_counts_boxes_where_objects_are_and_objects_that_are_none() -> None:
    """Middle level, second anchor: an object in row 1, column 2; nothing in row 4, column 4."""
    teacher = [torch.full((1, 2, 8, side, side), -8.0) for side in (12, 6, 3)]
    teacher[1][0, 1, :, 1, 2] = torch.tensor([0.0, 0.0, 0.0, 0.0, 6.0, 6.0, -6.0, -6.0])
    costs = {}
    for name, (answer, row, column) in {
        "box of the object": (0, 1, 2),
        "class of the object": (5, 1, 2),
        "box of nothing": (0, 4, 4),
        "object that is none": (4, 4, 4),
        "object missed": (4, 1, 2),
    }.items():
        student = [one.clone() for one in teacher]
        student[1][0, 1, answer, row, column] *= -1
        student[1][0, 1, answer, row, column] += 2 * (answer == 0)
        maps = ([one.flatten(1, 2) for one in side] for side in (student, teacher))
        costs[name] = DistillationLoss(ANCHORS)(*maps).item()
    assert costs.pop("box of nothing") == pytest.approx(0, abs=1e-6)
    assert min(costs.values()) > 0.3


def test_the_teacher_gets_no_gradient() -> None:
    student, teacher = raw_maps(1), [one.requires_grad_() for one in raw_maps(2)]
    student[0].requires_grad_()
    DistillationLoss(ANCHORS)(student, teacher).backward()
    assert student[0].grad is not None
    assert all(one.grad is None for one in teacher)


def test_an_unchanged_batch_is_what_inference_sees(loaded: LoadedModel, samples: list[Sample]) -> None:
    assert loaded.augment is not None
    (batch,), rows = loaded.augment(samples, np.random.default_rng(0), UNCHANGED)
    assert torch.equal(batch, torch.cat([loaded.preprocess(sample.input)[0][0] for sample in samples]))
    expected = [
        [index, label, (x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1]
        for index, sample in enumerate(samples)
        for label, (x1, y1, x2, y2) in zip(sample.target.classes, sample.target.boxes, strict=True)
    ]
    assert rows.dtype == torch.float32
    assert rows.numpy() == pytest.approx(np.array(expected), abs=1e-4)


def test_changed_batches_are_bytes_too_and_need_no_labels(loaded: LoadedModel, samples: list[Sample]) -> None:
    assert loaded.augment is not None
    assert loaded.byte_scale is not None
    unlabelled = [Sample(sample.id, sample.input) for sample in samples]
    with_rows, without = (
        loaded.augment(chosen, np.random.default_rng(3), Augmentation(mosaic=0.5)) for chosen in (samples, unlabelled)
    )
    batch = without[0][0]
    assert torch.equal(batch, with_rows[0][0])
    assert torch.equal((batch / loaded.byte_scale).round() / 255, batch)
    assert without[1].shape == (0, 6)
    assert len(with_rows[1])


def test_without_options_the_defaults_hold(loaded: LoadedModel, samples: list[Sample]) -> None:
    assert loaded.augment is not None
    batches = [loaded.augment(samples, np.random.default_rng(3), options)[0][0] for options in (None, Augmentation())]
    assert torch.equal(*batches)


def mean_average_precision(loaded: LoadedModel, samples: list[Sample]) -> float:
    metric = MeanAveragePrecision(loaded.class_names)
    loaded.module.eval()
    with torch.inference_mode():
        for sample in samples:
            inputs, context = loaded.preprocess(sample.input)
            metric.update(sample.id, loaded.postprocess(loaded.module(*inputs), context), sample.target)
    return float(metric.compute(np.ones((1, len(samples))))[0])


def test_a_few_images_are_learnt(loaded: LoadedModel, samples: list[Sample]) -> None:
    """The head is made anew, and the supervised loss teaches it what is in four images."""
    assert loaded.augment is not None
    assert loaded.supervised_loss is not None
    torch.manual_seed(0)
    head = loaded.module.requires_grad_(False).get_submodule("model.24").requires_grad_(True)
    for conv in head.get_submodule("m").children():
        assert isinstance(conv, nn.Conv2d)
        conv.reset_parameters()
    before = mean_average_precision(loaded, samples)
    (batch,), rows = loaded.augment(samples, np.random.default_rng(0), UNCHANGED)
    optimizer = torch.optim.AdamW(head.parameters(), 0.03)
    losses = []
    for _ in range(50):
        loss = loaded.supervised_loss(loaded.module(batch), rows)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 6
    assert before < 0.1
    assert mean_average_precision(loaded, samples) > 0.6
