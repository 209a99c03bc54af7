"""The configuration that a result is of."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from qgate.config.document import shown
from qgate.environment import repository_folder

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qgate.results import Result

__all__ = ["about", "judged_file"]


def judged_file(result: Result, config: Path) -> Path:
    """Give the configuration that a result is of: another one may keep its results in the same file."""
    if result.config_path is None:
        return config
    places = repository_folder(config) / result.config_path, config.parent / Path(result.config_path).name
    found = next((path for path in places if path.is_file()), places[0])
    return config if found.resolve() == config.resolve() else found


def about(result: Result, judged: Path, config: Path) -> Iterator[str]:
    """Give what is to be said of that file: that it is another one, is gone, or has changed."""
    name = judged if judged == config else shown(judged)
    if judged != config:
        yield f"this run was of {name}, not of {config}"
    if not judged.is_file():
        yield f"{name} is not there any more"
    elif hashlib.sha256(judged.read_bytes()).hexdigest() != result.config_sha256:
        yield f"{name} has changed since this run; run the gate again"
