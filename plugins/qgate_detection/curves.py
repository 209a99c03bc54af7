"""Precision over recall, of all classes and of those that int8 loses most of."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from qgate.panels import CurvePlot, Curves, Line

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from qgate.panels import Arm
    from qgate_detection.average_precision import ClassMatches
    from qgate_detection.metrics import MeanAveragePrecision50

    Floats = NDArray[np.float64]

RECALLS = np.linspace(0, 1, 101)

_NUM_CLASSES = 5
_MIN_TARGETS = 5  # a class of fewer makes a curve of a few steps
_ARMS: tuple[Arm, Arm] = ("float32", "int8")


def precision_recall(metrics: Mapping[str, MeanAveragePrecision50], class_names: Sequence[str]) -> Curves:
    """Give the curves of both arms at an IoU of 0.5: the mean of all classes, then classes, the greatest loss first."""
    matches = {arm: metrics[arm].classes() for arm in _ARMS}
    curves = {arm: np.array([precision_at_recalls(each) for each in matches[arm]]) for arm in _ARMS}
    num_targets = np.array([each.num_targets.sum() for each in matches["float32"]])
    means = {arm: curves[arm][num_targets > 0].mean(axis=0) for arm in _ARMS}
    plots = [_plot(f"all {int((num_targets > 0).sum())} classes", means)]
    lost = np.where(num_targets >= _MIN_TARGETS, (curves["float32"] - curves["int8"]).mean(axis=1), -np.inf)
    for index in np.argsort(-lost, kind="stable")[:_NUM_CLASSES].tolist():
        if lost[index] > 0:
            name = class_names[index] if class_names else str(index)
            plots.append(_plot(name, {arm: curves[arm][index] for arm in _ARMS}))
    about = "At an IoU of 0.5, interpolated as COCO does. Beside the mean: the classes that int8 loses most of."
    return Curves("Precision and recall", about, "recall", "precision", tuple(plots))


def precision_at_recalls(matches: ClassMatches) -> Floats:
    """Give the precision of one class at COCO's 101 points of recall, at the first threshold: shape (101,).

    The greatest precision at that recall or a higher one, 0 beyond the last, as `COCOeval.accumulate` has it. Zeros
    where there is no target.
    """
    num_targets = matches.num_targets.sum()
    found = matches.found[0][~matches.ignored[0]]
    hits = np.cumsum(found)
    precision = np.maximum.accumulate((hits / np.arange(1, len(found) + 1))[::-1])[::-1]
    if not num_targets:
        return np.zeros(len(RECALLS))
    reached = np.searchsorted(hits / num_targets, RECALLS, side="left")
    return np.append(precision, 0.0)[reached]


def _plot(title: str, curves: Mapping[Arm, Floats]) -> CurvePlot:
    x = tuple(RECALLS.tolist())
    return CurvePlot(title, tuple(Line(arm, x, tuple(np.round(curves[arm], 4).tolist())) for arm in _ARMS))
