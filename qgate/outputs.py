"""The files that a run leaves to its user: what cannot be written is found before the work, not after it."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from qgate.errors import ArtifactError, ConfigError, QGateError, ResultsError
from qgate.files import check_writable, write_atomically

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = [
    "Output",
    "artifact_output",
    "blessed_output",
    "config_output",
    "history_output",
    "results_output",
    "trials_output",
]


@dataclass(frozen=True)
class Output:
    """A file to be written, and the error, its message and its remedy where that cannot be."""

    path: Path
    error: type[QGateError]
    message: str
    remedy: str

    def check(self) -> None:
        """Raise the error where `write` would, as far as can be told; neither file nor folder is made."""
        with self._explained():
            check_writable(self.path)

    def write(self, content: bytes) -> None:
        """Write the file whole or not at all. Raises the error."""
        with self._explained():
            write_atomically(self.path, content)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            message = f"{self.message}: {error.strerror or error}; {self.remedy}"
            raise self.error(message, path=self.path) from error


def artifact_output(path: Path) -> Output:
    """Describe an int8 model's file."""
    remedy = "name a folder that can be written as `artifacts` in [qgate], or for `qgate export` with --output"
    return Output(path, ArtifactError, "cannot be written", remedy)


def results_output(path: Path) -> Output:
    """Describe `results.json`."""
    remedy = "name a file that can be written as `results` in [qgate]"
    return Output(path, ResultsError, "the results cannot be written", remedy)


def history_output(path: Path) -> Output:
    """Describe a run's file in the history."""
    remedy = "name a file that can be written as `results` in [qgate]: the runs so far are kept beside it"
    return Output(path, ResultsError, "the history cannot be written", remedy)


def blessed_output(path: Path) -> Output:
    """Describe the file of blessed results."""
    remedy = "name a file that can be written as `blessed` in [qgate]"
    return Output(path, ResultsError, "the blessed results cannot be written", remedy)


def config_output(path: Path) -> Output:
    """Describe a `qgate.toml` that is to be written anew."""
    return Output(path, ConfigError, "cannot be written", "a recipe that is found could not be kept")


def trials_output(path: Path) -> Output:
    """Describe what a search remembers."""
    remedy = "name a file that can be written as `results` in [qgate]: what is tried is kept beside it"
    return Output(path, ResultsError, "cannot be written", remedy)
