"""The report formats of the core, and what `FORMAT:DEST` on a command line means."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from qgate.errors import QGateError
from qgate.files import write_atomically
from qgate.reporting.text import encodable

if TYPE_CHECKING:
    from qgate.plugins import Registry
    from qgate.protocols import Reporter
    from qgate.results import Result


class JsonReporter:
    """The content of `results.json`."""

    name: ClassVar[str] = "json"

    def write(self, result: Result, destination: Path | None) -> None:
        """Write `result` as JSON."""
        write_text(result.to_json(), destination)


@dataclass(frozen=True)
class Report:
    """A report that was asked for: who writes it, and where to (None: standard output)."""

    reporter: Reporter
    destination: Path | None

    @classmethod
    def parse(cls, text: str, registry: Registry) -> Report:
        """Read `FORMAT` or `FORMAT:DEST`. Raises `PluginError` where no plugin has that format."""
        name, _, destination = text.partition(":")
        return cls(registry.reporters.get(name)(), Path(destination) if destination else None)

    def write(self, result: Result) -> None:
        """Write the report. Raises `QGateError` where the reporter fails: it may be a plugin's."""
        try:
            self.reporter.write(result, self.destination)
        except Exception as error:
            reason = f"the {self.reporter.name} report cannot be written: {type(error).__name__}: {error}"
            raise QGateError(reason, path=self.destination) from error


def write_text(text: str, destination: Path | None) -> None:
    """Write `text` to a file, atomically, or to standard output. Raises `OSError`."""
    if destination is None:
        sys.stdout.write(encodable(text, sys.stdout.encoding))
        sys.stdout.flush()
    else:
        write_atomically(destination, text.encode())
