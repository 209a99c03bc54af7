"""Detection data sets and box metrics for qgate."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qgate import hookimpl

if TYPE_CHECKING:
    from pathlib import Path

    from qgate.protocols import Dataset, Metric, Panels


@hookimpl
def qgate_register_datasets() -> list[type[Dataset]]:
    """Provide `format = "coco"` and `format = "yolo"`."""
    from qgate_detection.coco import CocoDataset
    from qgate_detection.yolo import YoloDataset

    return [CocoDataset, YoloDataset]


@hookimpl
def qgate_register_metrics() -> list[type[Metric]]:
    """Provide `map`, `map50` and `iou`, and of the metrics without labels `agreement` and `invented`."""
    from qgate_detection.agreement import Agreement, Invented
    from qgate_detection.metrics import MeanAveragePrecision, MeanAveragePrecision50, MeanIoU

    return [MeanAveragePrecision, MeanAveragePrecision50, MeanIoU, Agreement, Invented]


@hookimpl
def qgate_register_panels() -> list[type[Panels]]:
    """Show precision over recall, and the images that int8 does worst on."""
    from qgate_detection.panels import DetectionPanels

    return [DetectionPanels]


@hookimpl(trylast=True)  # it takes any folder of images, so those who are more particular come first
def qgate_propose_data(data: Path) -> dict[str, Any] | None:
    """Propose `format = "coco"` or `"yolo"` for what looks like it."""
    from qgate_detection.proposal import propose_data

    return propose_data(data)


@hookimpl
def qgate_drop_class(prediction: Any, class_index: int) -> Any:
    """Leave one class out of `Detections`."""
    from qgate_detection.boxes import Detections

    return prediction.without_class(class_index) if isinstance(prediction, Detections) else None


@hookimpl
def qgate_pseudo_label(prediction: Any) -> Any:
    """Take `Detections` of a score of at least 0.25 for what is there."""
    from qgate_detection.agreement import MIN_SCORE
    from qgate_detection.boxes import Detections

    if not isinstance(prediction, Detections):
        return None
    return prediction.chosen(prediction.scores >= MIN_SCORE).as_targets()
