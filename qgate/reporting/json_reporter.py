"""The report as a program reads it."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from qgate.reporting.text import write_text

if TYPE_CHECKING:
    from pathlib import Path

    from qgate.results import Result

__all__ = ["JsonReporter"]


class JsonReporter:
    """The content of `results.json`."""

    name: ClassVar[str] = "json"

    def write(self, result: Result, destination: Path | None) -> None:
        """Write `result` as JSON."""
        write_text(result.to_json(), destination)
