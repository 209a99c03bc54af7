"""What reports show of detections: precision over recall, and the images that int8 does worst on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from qgate_detection.boxes import Detections, Targets
from qgate_detection.curves import precision_recall
from qgate_detection.gallery import Seen, WorstImages
from qgate_detection.metrics import MeanAveragePrecision50

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from qgate.panels import Panel
    from qgate.protocols import Sample


class DetectionPanels:
    """Curves of labelled images, and pictures of all; detections of other kinds are left alone."""

    name: ClassVar[str] = "detection"

    def __init__(self, class_names: Sequence[str]) -> None:
        self._class_names = tuple(class_names)
        self._metrics = {arm: MeanAveragePrecision50(class_names) for arm in ("float32", "int8")}
        self._worst = WorstImages(self._class_names)

    def update(self, sample_id: str, float32: Any, int8: Any, target: Any) -> None:
        """Take in both arms' `Detections` of one image, and its `Targets` where it is labelled."""
        if not (isinstance(float32, Detections) and isinstance(int8, Detections)):
            return
        if isinstance(target, Targets):
            self._metrics["float32"].update(sample_id, float32, target)
            self._metrics["int8"].update(sample_id, int8, target)
        self._worst.add(Seen.of(sample_id, float32, int8, target))

    def panels(self, read: Callable[[int], Sample]) -> Iterator[Panel]:
        """Give the curves where every image is labelled and one has targets, and the pictures that int8 lost on."""
        if not len(self._worst):
            return
        if self._worst.is_labelled and self._metrics["float32"].support():
            yield precision_recall(self._metrics, self._class_names)
        gallery = self._worst.gallery(read)
        if gallery.pictures:
            yield gallery
