"""How far int8 detects what float32 detects; no labels are needed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from qgate_detection.matching import match, pool_boxes
from qgate_detection.metrics import MIN_SCORE_OF_IOU, BoxMetric, ratio

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from qgate_detection.boxes import Detections, Targets

    Floats = NDArray[np.float64]

MIN_SCORE = MIN_SCORE_OF_IOU
MIN_SCORE_OF_COUNTERPART = MIN_SCORE / 2
MIN_OVERLAP = 0.5


class _Comparison(BoxMetric):
    """Detections of one arm that count, and which of them the other arm has too.

    A detection counts from a score of 0.25, as for `iou`. Its counterpart is of the same class, overlaps it by an IoU
    of at least 0.5 and has a score of at least half of that limit: a score that moves from 0.26 to 0.24 is no
    detection lost or invented, one that falls to a tenth is. By falling score each detection takes the counterpart
    that it overlaps most among those still free. Boxes without area are left out.
    """

    compares_with: ClassVar[str] = "float32"

    def update(self, sample_id: str, prediction: Any, target: Any) -> None:
        """Take in the arm's `Detections` of one image, and float32's as `target`. Raises `ModelError`."""
        for detections in (prediction, target):
            self._check_prediction(sample_id, detections)
        counted, others = self._sides(prediction, target)
        self._add(_kept(counted, MIN_SCORE), _kept(others, MIN_SCORE_OF_COUNTERPART).as_targets())

    def _sides(self, prediction: Detections, float32: Detections) -> tuple[Detections, Detections]:
        """Give the detections to count, and those among which their counterparts are."""
        raise NotImplementedError

    def slices(self) -> Mapping[str, Sequence[str]]:
        """List the classes."""
        return {"class": self._class_names}

    def support(self, where: Mapping[str, str] | None = None) -> int:
        """Count the detections that count."""
        return len(self._rows("detections", where or {}))

    def _share(self, weights: Floats, where: Mapping[str, str] | None, *, matched: bool) -> Floats:
        """Give the share of detections with a counterpart, or without, for each row of `weights` (rows, images)."""
        detections, num_images = self._rows("detections", where or {}), weights.shape[1]
        image = detections["image"]
        total = weights @ np.bincount(image, detections["matched"] == matched, minlength=num_images)
        return ratio(total, weights @ np.bincount(image, minlength=num_images))

    def _columns(self) -> dict[str, Any]:
        return {"detections": np.dtype([("image", "u4"), ("label", "i4"), ("matched", "?")])}

    def _match(self, images: Sequence[tuple[Detections, Targets]]) -> dict[str, dict[str, Any]]:
        pool = pool_boxes(images, min_overlap=MIN_OVERLAP)
        matched = match(pool, np.array([MIN_OVERLAP]), (-np.inf, np.inf)).found[0]
        return {"detections": {"image": pool.image, "label": pool.label, "matched": matched}}


class Agreement(_Comparison):
    """The share of float32's detections that int8 reproduces; 1 for float32 itself."""

    name: ClassVar[str] = "agreement"

    def compute(self, weights: Floats, where: Mapping[str, str] | None = None) -> Floats:
        """Compute the share for each row of `weights` (rows, images); NaN where float32 detects nothing."""
        return self._share(weights, where, matched=True)

    def _sides(self, prediction: Detections, float32: Detections) -> tuple[Detections, Detections]:
        return float32, prediction


class Invented(_Comparison):
    """The share of int8's detections that float32 does not have; 0 for float32 itself."""

    name: ClassVar[str] = "invented"
    higher_is_better: ClassVar[bool] = False

    def compute(self, weights: Floats, where: Mapping[str, str] | None = None) -> Floats:
        """Compute the share for each row of `weights` (rows, images); NaN where int8 detects nothing."""
        return self._share(weights, where, matched=False)

    def _sides(self, prediction: Detections, float32: Detections) -> tuple[Detections, Detections]:
        return prediction, float32


def _kept(detections: Detections, min_score: float) -> Detections:
    sides = detections.boxes[:, 2:] - detections.boxes[:, :2]
    return detections.chosen((detections.scores >= min_score) & (sides > 0).all(axis=1))
