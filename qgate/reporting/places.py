"""Errors as one line."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from qgate.config.document import shown
from qgate.reporting.text import printable

if TYPE_CHECKING:
    from qgate.errors import QGateError


def one_line(error: QGateError) -> str:
    """Give the error's line, its path as short as it can be."""
    if "://" in str(error.path):
        return printable(str(error))
    path = error.path and shown(Path(error.path))
    return printable(str(type(error)(error.message, path=path, line=error.line)))
