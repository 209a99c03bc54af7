"""What `qgate init` writes for folders of images and masks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qgate.statistics import provable_drop
from qgate_detection.images import list_images

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_EVALUATION = ("val*", "test*")
_TRAINING = ("train*",)


def propose_data(data: Path) -> dict[str, Any] | None:
    """Propose splits for a folder with `images` and `masks`, split by folders below them or above them."""
    evaluation = next(_pairs(data, _EVALUATION), None) or _pair(data / "images", data / "masks")
    if evaluation is None:
        return None
    calibration = next(_pairs(data, _TRAINING), evaluation)
    splits = {"calibration": calibration, "evaluation": evaluation}
    num_images = len(list_images(evaluation["images"]))
    return {
        "data": {"format": "index_png", **splits},
        "thresholds": {"miou": {"max_drop": provable_drop(num_images)}},
        "num_evaluation_samples": num_images,
    }


def _pairs(data: Path, patterns: tuple[str, ...]) -> Iterator[dict[str, Path]]:
    for pattern in patterns:
        for images in sorted((data / "images").glob(pattern)):
            yield from filter(None, [_pair(images, data / "masks" / images.name)])
        for split in sorted(data.glob(pattern)):
            yield from filter(None, [_pair(split / "images", split / "masks")])


def _pair(images: Path, masks: Path) -> dict[str, Path] | None:
    if images.is_dir() and masks.is_dir() and any(masks.rglob("*.png")):
        return {"images": images, "masks": masks}
    return None
