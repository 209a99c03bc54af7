"""Image folders: a folder with a folder of images for each class, as torchvision's ImageFolder has it."""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING, ClassVar

from qgate.errors import DataError
from qgate_classification.scores import ClassTarget
from qgate_detection.dataset import ImageDataset
from qgate_detection.images import SUFFIXES, list_images

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from typing_extensions import Self


@dataclass(frozen=True)
class ImageFolderOptions:
    """`path` holds a folder for each class; without labels also a folder of images, or a `.txt` list of them.

    Where the model names its classes, a folder whose sub-folders have none of their names may be one of images.
    """

    path: Path


class ImageFolder(ImageDataset):
    """Images in class folders, ordered by folder and path; a sample's target is a `ClassTarget`."""

    name: ClassVar[str] = "image_folder"
    Options: ClassVar[type] = ImageFolderOptions

    @classmethod
    def open(cls, options: ImageFolderOptions, *, class_names: Sequence[str], require_targets: bool) -> Self:
        """Find all images and the class of each. Raises `DataError`."""
        root = options.path
        folders = _class_folders(root)
        if require_targets and not folders:
            raise DataError("expected a folder that holds a folder of images for each class", path=root)
        if not (require_targets or _are_classes(folders, class_names)):
            images = list_images(root)
            return cls(images, [None] * len(images), class_names)
        _check_no_stray_image(root)
        names = tuple(class_names) or tuple(folder.name for folder in folders)
        found = {_class_index(folder, names): list_images(folder, relative_to=root) for folder in folders}
        images = [image for group in found.values() for image in group]
        labels = [ClassTarget(index, len(names)) for index, group in found.items() for _ in group]
        return cls(images, labels, names)


def _class_folders(root: Path) -> list[Path]:
    """List the folders of a folder by name; what is hidden is no class."""
    if not root.is_dir():
        return []
    return sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))


def _are_classes(folders: Sequence[Path], class_names: Sequence[str]) -> bool:
    """Say whether folders that need not be classes are: one has a class's name, or there are no names to go by."""
    return any(not class_names or folder.name in class_names for folder in folders)


def _check_no_stray_image(root: Path) -> None:
    stray = next((path for path in sorted(root.iterdir()) if path.is_file() and path.suffix.lower() in SUFFIXES), None)
    if stray:
        raise DataError("is of no class: it lies beside the class folders; move it into one, or away", path=stray)


def _class_index(folder: Path, names: Sequence[str]) -> int:
    if folder.name in names:
        return names.index(folder.name)
    close = get_close_matches(folder.name, names, 1)
    hint = f'did you mean "{close[0]}"?' if close else f"it has {len(names)}, from {names[0]} to {names[-1]};"
    raise DataError(f"is no class of the model; {hint} name each folder as the model names its class", path=folder)
