"""Segmentation for qgate: index PNGs and COCO masks, mean IoU and mask mAP."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qgate import hookimpl

if TYPE_CHECKING:
    from pathlib import Path

    from qgate.protocols import Dataset, Metric


@hookimpl
def qgate_register_datasets() -> list[type[Dataset]]:
    """Provide `format = "index_png"` and `format = "coco_masks"`."""
    from qgate_segmentation.coco_masks import CocoMasksDataset
    from qgate_segmentation.index_png import IndexPngDataset

    return [CocoMasksDataset, IndexPngDataset]


@hookimpl
def qgate_register_metrics() -> list[type[Metric]]:
    """Provide `miou`, and `mask_map` and `mask_map50`."""
    from qgate_segmentation.mask_metrics import MaskAveragePrecision, MaskAveragePrecision50
    from qgate_segmentation.metrics import MeanIoU

    return [MeanIoU, MaskAveragePrecision, MaskAveragePrecision50]


@hookimpl
def qgate_propose_data(data: Path) -> dict[str, Any] | None:
    """Propose `format = "index_png"` for folders of images and masks."""
    from qgate_segmentation.proposal import propose_data

    return propose_data(data)


@hookimpl
def qgate_drop_class(prediction: Any, class_index: int) -> Any:
    """Leave one class out of a `LabelMap`."""
    from qgate_segmentation.label_map import LabelMap

    return prediction.without_class(class_index) if isinstance(prediction, LabelMap) else None


@hookimpl
def qgate_pseudo_label(prediction: Any) -> Any:
    """Take a `LabelMap` for what is there."""
    from qgate_segmentation.label_map import LabelMap

    return prediction if isinstance(prediction, LabelMap) else None
