"""mAP and mean IoU, re-weightable by image."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from qgate.errors import DataError, ModelError
from qgate.spill import Spill
from qgate_detection.average_precision import ClassMatches, average_precision
from qgate_detection.boxes import BOX, Detections, Targets
from qgate_detection.matching import match, pool_boxes

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from qgate_detection.boxes import Shape

    Floats = NDArray[np.float64]
    Groups = tuple[NDArray[Any], NDArray[np.int64]]

# pycocotools' areaRng, square pixels of a target.
AREA_RANGES = {"small": (0.0, 32.0**2), "medium": (32.0**2, 96.0**2), "large": (96.0**2, 1e10)}
ALL_AREAS = (0.0, 1e10)
MAX_DETECTIONS = 100  # of an image and class: the last of pycocotools' maxDets
MIN_SCORE_OF_IOU = 0.25

_SIZES = (None, *AREA_RANGES)
_PLACE = (("image", "u4"), ("label", "i4"))
_BATCH = 256  # images


class BoxMetric:
    """What the box metrics share: the names of slices, and what they keep of the images that they have seen.

    Images are matched a few hundred at a time, as vectorised as all at once; of each only rows of numbers are kept, in
    `_tables`, and of many images on disk. A table's rows have the column `image`, counted from 0.
    """

    name: ClassVar[str]
    unit: ClassVar[str] = ""
    higher_is_better: ClassVar[bool] = True
    prediction_type: ClassVar[type[Detections]] = Detections
    target_type: ClassVar[type[Targets]] = Targets

    def __init__(self, class_names: Sequence[str]) -> None:
        self._class_names = tuple(class_names)
        self._images: list[tuple[Detections, Targets]] = []  # that are not matched yet
        self._num_images = 0
        self._tables = {name: Spill(dtype) for name, dtype in self._columns().items()}

    def update(self, sample_id: str, prediction: Any, target: Any) -> None:
        """Take in the `Detections` and `Targets` of one image. Raises `ModelError`, `DataError`."""
        self._check_prediction(sample_id, prediction)
        if not isinstance(target, self.target_type):
            raise DataError(
                f"{sample_id}: metric {self.name!r} compares with {_full_name(self.target_type)}, "
                f"the data set gives {type(target).__name__}; use another format of data or another metric"
            )
        self._check_pair(sample_id, prediction, target)
        self._add(prediction, target)

    def summary(self) -> dict[str, Any]:
        """Give the rows that are kept, as plain arrays."""
        self._settle()
        tables = {name: table.rows() for name, table in self._tables.items()}
        plain = {name: {key: rows[key] for key in rows.dtype.names or ()} for name, rows in tables.items()}
        return {"images": self._num_images, "tables": plain}

    def merge(self, summary: dict[str, Any]) -> None:
        """Take in another instance's rows."""
        self._settle()
        for name, columns in summary["tables"].items():
            rows = _rows(self._tables[name].dtype, columns)
            rows["image"] += self._num_images
            self._tables[name].append(rows)
        self._num_images += summary["images"]
        self._forget()

    def _columns(self) -> dict[str, Any]:
        """Give the type of each table's rows."""
        raise NotImplementedError

    def _match(self, images: Sequence[tuple[Detections, Targets]]) -> dict[str, dict[str, Any]]:
        """Give the columns of each table for some images."""
        raise NotImplementedError

    def _add(self, detections: Detections, targets: Targets) -> None:
        self._images.append((detections, targets))
        self._forget()
        if len(self._images) == _BATCH:
            self._settle()

    def _settle(self) -> None:
        """Match the images that wait."""
        if self._images:
            images, self._images = self._images, []
            self.merge({"images": len(images), "tables": self._match(images)})

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

    def _check_pair(self, sample_id: str, prediction: Any, target: Any) -> None:
        """Raise `ModelError` where the two, each right by itself, cannot be compared."""

    def _forget(self) -> None:
        """Drop what was computed for fewer images."""

    def _class_index(self, where: Mapping[str, str]) -> int | None:
        return self._class_names.index(where["class"]) if "class" in where else None

    def _rows(self, table: str, where: Mapping[str, str]) -> NDArray[Any]:
        """Give a table's rows, or those of one class, by their column `label`."""
        self._settle()
        rows, index = self._tables[table].rows(), self._class_index(where)
        return rows if index is None else rows[rows["label"] == index]


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
        where = where or {}
        ignored = self._rows("targets", where)["ignored"] >> _SIZES.index(where.get("size"))
        return int((ignored & 1 == 0).sum())

    def classes(self) -> list[ClassMatches]:
        """Give what became of each class's detections."""
        return list(self._classes({}))

    def _columns(self) -> dict[str, Any]:
        bits = ("u1", (-(-len(_SIZES) * len(self.thresholds) // 8),))  # for each size and threshold
        detection = [*_PLACE, ("score", "f4"), ("found", *bits), ("ignored", *bits)]
        return {"detections": np.dtype(detection), "targets": np.dtype([*_PLACE, ("ignored", "u1")])}

    def _match(self, images: Sequence[tuple[Detections, Targets]]) -> dict[str, dict[str, Any]]:
        pool = pool_boxes(images, min_overlap=self.thresholds[0], max_detections=MAX_DETECTIONS, shape=self.shape)
        matches = [match(pool, self.thresholds, area_range) for area_range in (ALL_AREAS, *AREA_RANGES.values())]
        return {
            "detections": {
                "image": pool.image,
                "label": pool.label,
                "score": pool.score,
                "found": _packed([item.found for item in matches]),
                "ignored": _packed([item.ignored for item in matches]),
            },
            "targets": {
                "image": pool.target_image,
                "label": pool.target_label,
                "ignored": _packed([item.target_ignored[None] for item in matches])[:, 0],
            },
        }

    def _classes(self, where: Mapping[str, str]) -> Iterator[ClassMatches]:
        """Give the matches class by class: only one class's are in memory."""
        self._settle()
        index = self._class_index(where)
        # A detector without class names counts as having those of its targets.
        num_classes = len(self._class_names) or len(self._targets[1]) - 1
        for each in range(num_classes) if index is None else (index,):
            yield self._class_matches(each, _SIZES.index(where.get("size")))

    def _class_matches(self, index: int, size: int) -> ClassMatches:
        detections, targets = (_group(table, index) for table in (self._detections, self._targets))
        bits = slice(size * len(self.thresholds), (size + 1) * len(self.thresholds))
        counted = targets["image"][targets["ignored"] >> size & 1 == 0]
        return ClassMatches(
            detections["image"].astype(np.int64),
            _unpacked(detections["found"], bits),
            _unpacked(detections["ignored"], bits),
            np.bincount(counted, minlength=self._num_images).astype(np.float64),
        )

    def _forget(self) -> None:
        for name in ("_detections", "_targets"):
            vars(self).pop(name, None)

    @cached_property
    def _detections(self) -> Groups:
        """Give the detections by class, and in a class by falling score; equal scores keep the order of the images."""
        rows, bounds = self._tables["detections"].grouped("label")
        for part in map(slice, bounds[:-1], bounds[1:]):
            rows[part] = rows[part][np.argsort(-rows[part]["score"], kind="stable")]
        return rows, bounds

    @cached_property
    def _targets(self) -> Groups:
        """Give the targets by class."""
        return self._tables["targets"].grouped("label")


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
        targets, num_images = self._rows("targets", where or {}), weights.shape[1]
        total = weights @ np.bincount(targets["image"], targets["overlap"], minlength=num_images)
        num_targets = weights @ np.bincount(targets["image"], minlength=num_images)
        return ratio(total, num_targets)

    def slices(self) -> Mapping[str, Sequence[str]]:
        """List the classes."""
        return {"class": self._class_names}

    def support(self, where: Mapping[str, str] | None = None) -> int:
        """Count the targets."""
        return len(self._rows("targets", where or {}))

    def _columns(self) -> dict[str, Any]:
        return {"targets": np.dtype([*_PLACE, ("overlap", "f8")])}

    def _match(self, images: Sequence[tuple[Detections, Targets]]) -> dict[str, dict[str, Any]]:
        confident = [(_confident(detections), _without_crowds(targets)) for detections, targets in images]
        pool = pool_boxes(confident, min_overlap=np.finfo(float).tiny)
        pairs = match(pool, np.zeros(1), (-np.inf, np.inf)).pair
        chosen = pairs[pairs >= 0]
        overlap = np.zeros(len(pool.target_image))  # with the detection that chose the target
        overlap[pool.pair_target[chosen]] = pool.pair_overlap[chosen]
        return {"targets": {"image": pool.target_image, "label": pool.target_label, "overlap": overlap}}


def _packed(marks: Sequence[NDArray[np.bool_]]) -> NDArray[np.uint8]:
    """Pack marks, each (T, boxes), as bits: (boxes, bytes)."""
    packed: NDArray[np.uint8] = np.packbits(np.concatenate(marks), axis=0, bitorder="little").T
    return packed


def _unpacked(packed: NDArray[np.uint8], bits: slice) -> NDArray[np.bool_]:
    """Give some of the marks that were packed, (bits, boxes)."""
    marks: NDArray[np.bool_] = np.unpackbits(packed, axis=1, bitorder="little")[:, bits].T.astype(bool)
    return marks


def _rows(dtype: np.dtype[Any], columns: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
    rows = np.empty(len(columns["image"]), dtype)
    for name, values in columns.items():
        rows[name] = values
    return rows


def _group(table: Groups, index: int) -> NDArray[Any]:
    rows, bounds = table
    return rows[bounds[index] : bounds[index + 1]] if index + 1 < len(bounds) else rows[:0]


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
