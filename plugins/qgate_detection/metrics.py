"""mAP and mean IoU, re-weightable by image."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from qgate.errors import DataError, ModelError
from qgate_detection.average_precision import ClassMatches, average_precision
from qgate_detection.boxes import BOX, Detections, Targets
from qgate_detection.matching import BoxPool, Matches, match, pool_boxes

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from qgate_detection.boxes import Shape

    Floats = NDArray[np.float64]

# pycocotools' areaRng, square pixels of a target.
AREA_RANGES = {"small": (0.0, 32.0**2), "medium": (32.0**2, 96.0**2), "large": (96.0**2, 1e10)}
ALL_AREAS = (0.0, 1e10)
MAX_DETECTIONS = 100  # of an image and class: the last of pycocotools' maxDets
MIN_SCORE_OF_IOU = 0.25


class BoxMetric:
    """What the box metrics share: the images they have seen, and the names of slices."""

    name: ClassVar[str]
    unit: ClassVar[str] = ""
    higher_is_better: ClassVar[bool] = True
    prediction_type: ClassVar[type[Detections]] = Detections
    target_type: ClassVar[type[Targets]] = Targets

    def __init__(self, class_names: Sequence[str]) -> None:
        self._class_names = tuple(class_names)
        self._images: list[tuple[Detections, Targets]] = []

    def update(self, sample_id: str, prediction: Any, target: Any) -> None:
        """Take in the `Detections` and `Targets` of one image. Raises `ModelError`, `DataError`."""
        self._check_prediction(sample_id, prediction)
        if not isinstance(target, self.target_type):
            raise DataError(
                f"{sample_id}: metric {self.name!r} compares with {_full_name(self.target_type)}, "
                f"the data set gives {type(target).__name__}; use another format of data or another metric"
            )
        self._images.append((prediction, target))
        self._forget()

    def _check_prediction(self, sample_id: str, prediction: Any) -> None:
        if not isinstance(prediction, self.prediction_type):
            raise ModelError(
                f"{sample_id}: metric {self.name!r} takes {_full_name(self.prediction_type)}, the model's postprocess "
                f"gives {type(prediction).__name__}; return {self.prediction_type.__name__} there or use another metric"
            )
        if not (np.isfinite(prediction.boxes).all() and np.isfinite(prediction.scores).all()):
            raise ModelError(f"{sample_id}: the model predicts boxes or scores that are not finite")
        if self._class_names and len(prediction) and not _within(prediction.classes, len(self._class_names)):
            raise ModelError(
                f"{sample_id}: the model predicts class {prediction.classes.max()}, "
                f"but has names for {len(self._class_names)} classes only"
            )

    def _forget(self) -> None:
        """Drop what was computed for fewer images."""
        vars(self).pop("_pool", None)

    def _class_index(self, where: Mapping[str, str]) -> int | None:
        return self._class_names.index(where["class"]) if "class" in where else None


class MeanAveragePrecision(BoxMetric):
    """COCO's mAP@[.50:.95]: 101 points of recall, at most 100 detections of an image and class, as pycocotools."""

    name = "map"
    shape: ClassVar[Shape] = BOX
    thresholds: ClassVar[NDArray[np.float64]] = np.linspace(0.5, 0.95, 10)

    def compute(self, weights: Floats, where: Mapping[str, str] | None = None) -> Floats:
        """Compute mAP for each row of `weights` (rows, images); classes without targets in a row are left out."""
        by_image = np.ascontiguousarray(weights.T, dtype=np.float64)
        total, num_classes = np.zeros(len(weights)), np.zeros(len(weights))
        for matches in self._classes(where or {}):
            defined = matches.num_targets @ by_image > 0
            total += np.where(defined, average_precision(matches, by_image), 0.0)
            num_classes += defined
        return ratio(total, num_classes)

    def slices(self) -> Mapping[str, Sequence[str]]:
        """List the classes, and COCO's small, medium and large targets."""
        return {"class": self._class_names, "size": tuple(AREA_RANGES)}

    def support(self, where: Mapping[str, str] | None = None) -> int:
        """Count the targets to be found."""
        return int(sum(matches.num_targets.sum() for matches in self._classes(where or {})))

    def classes(self) -> list[ClassMatches]:
        """Give what became of each class's detections."""
        return self._matches(None)

    def _classes(self, where: Mapping[str, str]) -> list[ClassMatches]:
        classes = self._matches(where.get("size"))
        index = self._class_index(where)
        return classes if index is None else classes[index : index + 1]

    def _matches(self, size: str | None) -> list[ClassMatches]:
        if size not in self._by_size:
            area_range = ALL_AREAS if size is None else AREA_RANGES[size]
            matches = match(self._pool, self.thresholds, area_range)
            self._by_size[size] = split_by_class(self._pool, matches, len(self._class_names), len(self._images))
        return self._by_size[size]

    def _forget(self) -> None:
        super()._forget()
        vars(self).pop("_by_size", None)

    @cached_property
    def _pool(self) -> BoxPool:
        return pool_boxes(self._images, min_overlap=self.thresholds[0], max_detections=MAX_DETECTIONS, shape=self.shape)

    @cached_property
    def _by_size(self) -> dict[str | None, list[ClassMatches]]:
        return {}


class MeanAveragePrecision50(MeanAveragePrecision):
    """COCO's mAP at an overlap of 0.5."""

    name = "map50"
    thresholds: ClassVar[NDArray[np.float64]] = np.array([0.5])


class MeanIoU(BoxMetric):
    """The mean over targets of the overlap with the detection that finds them, 0 where none does.

    Detections of a score of at least 0.25 choose by falling score among the targets of their class that are
    still free, the largest overlap first. Crowds are left out.
    """

    name = "iou"

    def compute(self, weights: Floats, where: Mapping[str, str] | None = None) -> Floats:
        """Compute the mean overlap for each row of `weights` (rows, images)."""
        chosen = self._chosen(where or {})
        overlap, image = self._overlaps[chosen], self._pool.target_image[chosen]
        num_images = weights.shape[1]
        total = weights @ np.bincount(image, overlap, minlength=num_images)
        num_targets = weights @ np.bincount(image, minlength=num_images)
        return ratio(total, num_targets)

    def slices(self) -> Mapping[str, Sequence[str]]:
        """List the classes."""
        return {"class": self._class_names}

    def support(self, where: Mapping[str, str] | None = None) -> int:
        """Count the targets."""
        return int(self._chosen(where or {}).sum())

    def _chosen(self, where: Mapping[str, str]) -> NDArray[np.bool_]:
        index = self._class_index(where)
        label = self._pool.target_label
        return np.ones(len(label), dtype=bool) if index is None else label == index

    def _forget(self) -> None:
        super()._forget()
        vars(self).pop("_overlaps", None)

    @cached_property
    def _pool(self) -> BoxPool:
        confident = [(_confident(detections), _without_crowds(targets)) for detections, targets in self._images]
        return pool_boxes(confident, min_overlap=np.finfo(float).tiny)

    @cached_property
    def _overlaps(self) -> Floats:
        """Give for each target the overlap of the detection that chose it, (G,)."""
        pairs = match(self._pool, np.zeros(1), (-np.inf, np.inf)).pair
        chosen = pairs[pairs >= 0]
        overlaps = np.zeros(len(self._pool.target_image))
        overlaps[self._pool.pair_target[chosen]] = self._pool.pair_overlap[chosen]
        return overlaps


def split_by_class(pool: BoxPool, matches: Matches, num_classes: int, num_images: int) -> list[ClassMatches]:
    """Cut matches into classes; a detector without class names counts as having those of its targets."""
    if num_classes == 0 and len(pool.target_label):
        num_classes = int(pool.target_label.max()) + 1
    bounds = np.searchsorted(pool.label, np.arange(num_classes + 1))
    cell = pool.target_label * num_images + pool.target_image
    num_targets = np.bincount(cell[~matches.target_ignored], minlength=num_classes * num_images)
    found = matches.found
    return [
        ClassMatches(pool.image[part], found[:, part], matches.ignored[:, part], row.astype(np.float64))
        for row, part in zip(
            num_targets.reshape(num_classes, num_images), map(slice, bounds[:-1], bounds[1:]), strict=True
        )
    ]


def ratio(total: Floats, count: Floats) -> Floats:
    """Divide weighted sums by the weighted number of their terms, both (rows,); NaN where there is none."""
    mean = np.full(len(total), np.nan)
    np.divide(total, count, out=mean, where=count > 0)
    return mean


def _full_name(kind: type) -> str:
    return f"{kind.__module__}.{kind.__name__}"


def _within(classes: NDArray[np.int64], num_classes: int) -> bool:
    return bool(classes.min() >= 0 and classes.max() < num_classes)


def _confident(detections: Detections) -> Detections:
    return detections.chosen(detections.scores >= MIN_SCORE_OF_IOU)


def _without_crowds(targets: Targets) -> Targets:
    kept = ~targets.crowd
    return Targets(targets.boxes[kept], targets.classes[kept], targets.crowd[kept], targets.areas[kept])
