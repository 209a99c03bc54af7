"""Makes the stored data set: `python examples/digits/make_dataset.py` rewrites `data/` from its seed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from scenes import CLASS_NAMES, IMAGE_SIZE, Image, Scene, draw_scene, source_digits

DATA = Path(__file__).parent / "data"
SEED = 8
NUM_IMAGES: dict[Literal["train", "val"], int] = {"train": 128, "val": 192}
JPEG_QUALITY = 85


def main() -> None:
    """Write both splits: a folder of JPEG files and a COCO JSON file each."""
    shutil.rmtree(DATA, ignore_errors=True)
    for split, num_images in NUM_IMAGES.items():
        digits = source_digits(split)
        rng = np.random.default_rng([SEED, len(split)])
        write_split(split, [draw_scene(digits, rng) for _ in range(num_images)])
    total = sum(path.stat().st_size for path in DATA.rglob("*") if path.is_file())
    print(f"{total / 1e6:.2f} MB in {DATA}")


def write_split(split: str, scenes: list[Scene]) -> None:
    """Write the images of a split and their boxes."""
    folder = DATA / split
    folder.mkdir(parents=True)
    names = [f"{index:04}.jpg" for index in range(len(scenes))]
    for name, scene in zip(names, scenes, strict=True):
        (folder / name).write_bytes(encode(scene.image))
    document = coco_document(names, scenes)
    (DATA / f"{split}.json").write_text(json.dumps(document) + "\n", encoding="utf-8")
    print(f"{split}: {len(scenes)} images, {len(document['annotations'])} digits")


def encode(image: Image) -> bytes:
    """Encode an image as JPEG."""
    _, content = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    return content.tobytes()


def coco_document(names: list[str], scenes: list[Scene]) -> dict[str, Any]:
    """Describe scenes in COCO's terms. All ids count from 1: pycocotools takes an annotation of id 0 for unmatched."""
    boxes = [
        (image_id, int(label), [float(edge) for edge in box])
        for image_id, scene in enumerate(scenes, start=1)
        for label, box in zip(scene.labels, scene.boxes, strict=True)
    ]
    return {
        "info": {"description": "Handwritten digits on cluttered backgrounds", "version": "1"},
        "images": [
            {"id": image_id, "file_name": name, "width": IMAGE_SIZE, "height": IMAGE_SIZE}
            for image_id, name in enumerate(names, start=1)
        ],
        "categories": [{"id": index, "name": name} for index, name in enumerate(CLASS_NAMES, start=1)],
        "annotations": [_annotation(index, *box) for index, box in enumerate(boxes, start=1)],
    }


def _annotation(index: int, image_id: int, label: int, box: list[float]) -> dict[str, Any]:
    left, top, right, bottom = box
    width, height = right - left, bottom - top
    return {
        "id": index,
        "image_id": image_id,
        "category_id": label + 1,
        "bbox": [left, top, width, height],
        "area": width * height,
        "iscrowd": 0,
    }


if __name__ == "__main__":
    main()
