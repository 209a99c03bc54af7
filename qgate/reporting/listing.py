"""What is registered, by kind, name and plugin, and which hooks there are."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from qgate import hookspecs
from qgate.plugins import KINDS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qgate.plugins import Registry


def as_json(registry: Registry) -> dict[str, Any]:
    """Give `plugins` (names), `registered` (kind to name to plugin) and `hooks` (name to its first line)."""
    registered = {kind: _by_name(registry, kind) for kind in KINDS}
    return {"plugins": registry.plugins(), "registered": registered, "hooks": dict(_hooks())}


def as_text(registry: Registry) -> str:
    """Give the same for a reader."""
    return "\n".join(_lines(as_json(registry))) + "\n"


def _lines(listing: dict[str, Any]) -> Iterator[str]:
    for kind, names in listing["registered"].items():
        yield f"{kind}:"
        width = max(map(len, names), default=0)
        yield from (f"  {name:{width}}  {plugin}" for name, plugin in names.items())
        yield from () if names else ("  none",)
    yield "hooks:"
    for name, summary in listing["hooks"].items():
        yield f"  {name}"
        yield f"      {summary}"


def _by_name(registry: Registry, kind: str) -> dict[str, str]:
    entries = getattr(registry, kind)
    return {name: entries.plugin_of(name) for name in sorted(entries)}


def _hooks() -> Iterator[tuple[str, str]]:
    for name, hook in inspect.getmembers(hookspecs, inspect.isfunction):
        if name.startswith("qgate_"):
            yield name, (inspect.getdoc(hook) or "").partition("\n")[0]
