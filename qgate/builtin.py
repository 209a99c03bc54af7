"""What the core itself registers, by the hooks that every plugin has."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qgate import hookimpl

if TYPE_CHECKING:
    from qgate.protocols import Reporter


@hookimpl
def qgate_register_reporters() -> tuple[type[Reporter], ...]:
    """Register `json` and `markdown`."""
    from qgate.reporting.formats import JsonReporter, MarkdownReporter

    return (JsonReporter, MarkdownReporter)
