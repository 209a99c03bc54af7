"""`qgate.toml`: reading it, checking it, saying what is wrong with it."""

from __future__ import annotations

from qgate.config.document import parse
from qgate.config.reader import bind, plugin_modules, read_config

__all__ = ["bind", "parse", "plugin_modules", "read_config"]
