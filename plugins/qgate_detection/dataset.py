"""What data sets of labelled image files share."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, Protocol

from qgate.errors import DataError
from qgate.protocols import Sample
from qgate_detection.images import check_images, read_image

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from qgate_detection.images import ImageFile


class Labels(Protocol):
    """The labels of one image, as its format states them."""

    def class_indices(self) -> frozenset[int]:
        """Give the classes in the image."""
        ...

    def targets(self, height: int, width: int) -> Any:
        """Give what is to be found in an image of this size. Raises `DataError` where it contradicts the labels."""
        ...


class ImageDataset:
    """Images with their labels; `labels` holds None where nothing is known of an image."""

    def __init__(
        self, images: Sequence[ImageFile], labels: Sequence[Labels | None], class_names: Sequence[str]
    ) -> None:
        check_images(images)
        self._images = tuple(images)
        self._labels = tuple(labels)
        self.class_names = tuple(class_names)

    def __len__(self) -> int:
        return len(self._images)

    def sample(self, index: int) -> Sample:
        """Read one image, RGB uint8 (H, W, 3), with its targets. Raises `DataError`."""
        pixels = read_image(self._images[index].path)
        labels = self._labels[index]
        return Sample(self._images[index].id, pixels, labels.targets(*pixels.shape[:2]) if labels else None)

    def sample_id(self, index: int) -> str:
        """Name an image by its path relative to the data set."""
        return self._images[index].id

    def strata(self, index: int) -> frozenset[str]:
        """Name the classes in an image, by their index where they have no names."""
        labels = self._labels[index]
        return frozenset(map(self._class_name, labels.class_indices())) if labels else frozenset()

    def fingerprint(self, index: int) -> str:
        """Hash an image file's content."""
        try:
            return hashlib.sha256(self._images[index].path.read_bytes()).hexdigest()
        except OSError as error:
            raise DataError(
                f"the image cannot be read: {error.strerror or type(error).__name__}", path=self._images[index].path
            ) from None

    def _class_name(self, index: int) -> str:
        return self.class_names[index] if self.class_names else str(index)


def check_class_count(data: Sequence[str], model: Sequence[str], path: Path) -> None:
    """Raise `DataError` where data and model both name their classes and differ in how many they are."""
    if data and model and len(data) != len(model):
        raise DataError(
            f"names {len(data)} classes, the model has {len(model)}; use the data that the model was trained for",
            path=path,
        )


def check_class_order(data: Sequence[str], model: Sequence[str], path: Path) -> None:
    """Raise `DataError` where data and model have the same class names in another order."""
    if set(data) == set(model) and tuple(data) != tuple(model):
        index = next(index for index, (ours, theirs) in enumerate(zip(data, model, strict=True)) if ours != theirs)
        raise DataError(
            f"class {index} is {data[index]!r} here and {model[index]!r} in the model: the same names in another "
            "order; use the order that the model was trained with",
            path=path,
        )


def check_any_target(labels: Sequence[Labels | None], path: Path) -> None:
    """Raise `DataError` where there is not a single labelled box to evaluate with."""
    if not any(item and item.class_indices() for item in labels):
        raise DataError("the evaluation set is empty: no image has a labelled box", path=path)
