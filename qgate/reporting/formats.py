"""What `FORMAT:DEST` on a command line means."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from qgate.errors import QGateError

if TYPE_CHECKING:
    from qgate.plugins import Registry
    from qgate.protocols import Reporter
    from qgate.results import Result


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
            refusal = error.strerror if isinstance(error, OSError) else None
            said = refusal or f"{type(error).__name__}: {error}"
            reason = f"the {self.reporter.name} report cannot be written: {said}"
            raise QGateError(reason, path=self.destination) from error
