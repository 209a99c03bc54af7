"""What is registered, by kind, name and plugin, and which hooks there are."""

from __future__ import annotations

import inspect
import textwrap
from typing import TYPE_CHECKING, Any

from qgate import hookspecs
from qgate.plugins import KINDS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qgate.plugins import Registry

_WIDTH = 80
_INDENT = " " * 6


def as_json(registry: Registry) -> dict[str, Any]:
    """Give `plugins` (names), `registered` (kind to name to plugin) and `hooks` (name to its first line)."""
    registered = {kind: _by_name(registry, kind) for kind in KINDS}
    return {"plugins": registry.plugins(), "registered": registered, "hooks": dict(_hooks())}


def as_text(listing: dict[str, Any]) -> str:
    """Write what `as_json` gives for a reader."""
    return "\n".join(_lines(listing)) + "\n"


def _lines(listing: dict[str, Any]) -> Iterator[str]:
    for kind, names in listing["registered"].items():
        yield f"{kind}:"
        width = max(map(len, names), default=0)
        yield from (f"  {name:{width}}  {plugin}" for name, plugin in names.items())
        yield from () if names else ("  none",)
    yield "hooks:"
    for name, summary in listing["hooks"].items():
        yield f"  {name}"
        yield from textwrap.wrap(summary, _WIDTH, initial_indent=_INDENT, subsequent_indent=_INDENT)


def _by_name(registry: Registry, kind: str) -> dict[str, str]:
    entries = getattr(registry, kind)
    return {name: entries.plugin_of(name) for name in sorted(entries)}


def _hooks() -> Iterator[tuple[str, str]]:
    for name, hook in inspect.getmembers(hookspecs, inspect.isfunction):
        if name.startswith("qgate_"):
            yield name, (inspect.getdoc(hook) or "").partition("\n")[0]
