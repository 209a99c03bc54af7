"""Image files: where a data set says they are, and their pixels."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

import cv2
import numpy as np

from qgate.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})

_JPEG_START, _JPEG_SCAN, _JPEG_END = b"\xff\xd8", b"\xff\xda", b"\xff\xd9"


@dataclass(frozen=True)
class ImageFile:
    """An image, its stable id, and the place that names it; its path may be that of a URI."""

    path: Path
    id: str
    named_in: Path
    line: int | None = None


def list_images(source: Path, *, relative_to: Path | None = None) -> list[ImageFile]:
    """List the images of a folder, with its sub-folders, or of a `.txt` list of paths relative to its own folder.

    Ids are paths relative to `relative_to`, without it to the folder or the list's folder. Raises `DataError`.
    """
    if source.is_dir():
        return _list_folder(source, relative_to or source)
    if source.suffix == ".txt" and source.is_file():
        return _read_list(source, relative_to or source.parent)
    found = "is neither" if source.exists() else "does not exist; expected"
    raise DataError(f"{found} a folder of images or a .txt list of their paths", path=source)


def _list_folder(folder: Path, root: Path) -> list[ImageFile]:
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    if not paths:
        raise DataError(f"holds no image ({', '.join(sorted(SUFFIXES))})", path=folder)
    return [ImageFile(path, _identify(path, root), folder) for path in paths]


def _read_list(source: Path, root: Path) -> list[ImageFile]:
    images = []
    for number, line in enumerate(read_text(source).splitlines(), start=1):
        if line.strip():
            path = joined(source.parent, line.strip())
            images.append(ImageFile(path, _identify(path, root), source, number))
    if not images:
        raise DataError("lists no image; expected one path a line", path=source)
    return images


def joined(folder: Path, name: str) -> Path:
    """Give the path of a file in a folder, each of which may be a URI. Raises `DataError`."""
    if "://" in name:
        try:
            from upath import UPath
        except ImportError:
            raise DataError(f"{name} needs universal-pathlib; install pytest-qgate[uri]") from None
        return cast("Path", UPath(name))
    return folder / name if is_remote(folder) else Path(os.path.normpath(folder / name))


def is_remote(path: Path) -> bool:
    """Say whether a path is that of a URI (a `upath.UPath`), to be read by whoever needs the file, and no sooner."""
    return not isinstance(path, Path)


def _identify(path: Path, root: Path) -> str:
    if is_remote(path):
        return str(path).removeprefix(str(root)).removeprefix("/")
    return Path(os.path.relpath(path, root)).as_posix()


def read_text(path: Path) -> str:
    """Read a text file. Raises `DataError`."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise DataError("does not exist", path=path) from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot be read as text: {error}", path=path) from None


def check_images(images: Iterable[ImageFile]) -> None:
    """Raise `DataError` where an image is missing, is empty, does not begin as images do, or is named twice.

    Of images at a URI only the last is checked: each would be a request.
    """
    first: dict[Path, ImageFile] = {}
    for image in images:
        if image.path in first:
            raise DataError(f"image {_as_named(image)} is named twice", path=image.named_in, line=image.line)
        first[image.path] = image
        if is_remote(image.path):
            continue
        try:
            size = image.path.stat().st_size
        except OSError:
            raise DataError(f"image {_as_named(image)} is missing", path=image.named_in, line=image.line) from None
        if size == 0:
            raise DataError("the image file is empty (0 bytes); restore it or remove it from the set", path=image.path)
        if not cv2.haveImageReader(str(image.path)):  # reads only the first bytes
            read_image(image.path)


def _as_named(image: ImageFile) -> str:
    """Give the image's path as seen from the folder of what names it."""
    return _identify(image.path, image.named_in.parent)


def read_image(path: Path) -> NDArray[np.uint8]:
    """Read an image as RGB, uint8 (H, W, 3). Raises `DataError` also where a JPEG is cut short.

    Turned as EXIF says: annotation tools show images so, and YOLOv5 and detectron2 train on them so.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"the image cannot be read: {error.strerror or type(error).__name__}", path=path) from None
    cut_short = content.startswith(_JPEG_START) and content.rfind(_JPEG_END) < content.rfind(_JPEG_SCAN)
    pixels = None if cut_short or not content else _decode(content)
    if pixels is None:
        raise DataError("the image is damaged or of an unknown format; restore it or remove it from the set", path=path)
    return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB), dtype=np.uint8)


def _decode(content: bytes) -> NDArray[np.uint8] | None:
    try:
        return cv2.imdecode(np.frombuffer(content, dtype=np.uint8), cv2.IMREAD_COLOR)  # type: ignore[return-value]
    except cv2.error:
        return None
