"""What can go wrong, one class a cause; each reaches the user as one line."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


class QGateError(Exception):
    """A failure that the user can mend.

    The message says what was found, what was expected and what to do. `path` and `line` (1-based) name
    the place and are put before the message: `qgate.toml:12: ...`.
    """

    def __init__(self, message: str, *, path: Path | str | None = None, line: int | None = None) -> None:
        super().__init__(message)
        self.message = " ".join(message.split())
        self.path = path
        self.line = line

    def __str__(self) -> str:
        if self.path is None:
            return self.message
        place = str(self.path) if self.line is None else f"{self.path}:{self.line}"
        return f"{place}: {self.message}"


class ConfigError(QGateError):
    """`qgate.toml` is missing, is not TOML, or says something that cannot be.

    A plugin that does not know where its option stands names it as `key`.
    """

    def __init__(
        self, message: str, *, path: Path | str | None = None, line: int | None = None, key: str | None = None
    ) -> None:
        super().__init__(message, path=path, line=line)
        self.key = key


class PluginError(QGateError):
    """A plugin cannot be loaded, misspells a hook, or takes a name that is taken."""


class ModelError(QGateError):
    """A model cannot be read, rebuilt or run."""


class DataError(QGateError):
    """A data set, a sample or a target cannot be read, or contradicts the model."""


class TraceError(QGateError):
    """FX cannot trace a module symbolically."""


class QuantizationError(QGateError):
    """A recipe cannot be applied to this model on this machine."""


class CollapseError(QGateError):
    """The int8 model has nothing to do with the float32 one any more."""


class ArtifactError(QGateError):
    """An artifact cannot be written, is damaged, or holds what its format does not allow."""


class ExecutorError(QGateError):
    """An executor has no workers, loses them again and again, or has some that would compute something else."""


class ProcessError(QGateError):
    """A process that trains along has failed, is gone, or would train on something else."""


class ResultsError(QGateError):
    """A results file is missing, damaged, or of another schema."""
