"""COCO's mAP of masks, re-weightable by image."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from qgate.errors import ModelError
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

    def _check_pair(self, sample_id: str, prediction: Any, target: Any) -> None:
        # pycocotools finds no overlap between masks of two sizes: both arms would lose all, and the drop be 0.
        sizes = [(masks.height, masks.width) for masks in (prediction.masks, target.masks)]
        if sizes[0] != sizes[1]:
            raise ModelError(
                f"{sample_id}: the predicted masks are of an image of {sizes[0]} pixels, the labelled ones of "
                f"{sizes[1]}, (height, width); postprocess must give masks of the original image's size"
            )


class MaskAveragePrecision50(MaskAveragePrecision):
    """COCO's mAP of masks at an overlap of 0.5."""

    name = "mask_map50"
    thresholds: ClassVar[NDArray[np.float64]] = np.array([0.5])
