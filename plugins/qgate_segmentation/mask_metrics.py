"""COCO's mAP of masks, re-weightable by image."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np

from qgate_detection.metrics import MeanAveragePrecision
from qgate_segmentation.masks import MASK, InstanceDetections, InstanceTargets

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from qgate_detection.boxes import Detections, Shape, Targets


class MaskAveragePrecision(MeanAveragePrecision):
    """COCO's mAP@[.50:.95] with masks in place of boxes, as pycocotools' `iouType="segm"`."""

    name = "mask_map"
    shape: ClassVar[Shape] = MASK
    prediction_type: ClassVar[type[Detections]] = InstanceDetections
    target_type: ClassVar[type[Targets]] = InstanceTargets


class MaskAveragePrecision50(MaskAveragePrecision):
    """COCO's mAP of masks at an overlap of 0.5."""

    name = "mask_map50"
    thresholds: ClassVar[NDArray[np.float64]] = np.array([0.5])
