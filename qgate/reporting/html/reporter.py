"""The reporter `html`."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, ClassVar

from qgate.errors import QGateError
from qgate.reporting.text import write_text

if TYPE_CHECKING:
    from pathlib import Path

    from qgate.results import Result

_NEEDED = ("jinja2", "matplotlib")


class HtmlReporter:
    """One file that needs nothing else: verdicts, plots, and the pictures that int8 does worst on.

    Raises `QGateError` where a package of the extra `html` is missing: before anything slow.
    """

    name: ClassVar[str] = "html"

    def __init__(self) -> None:
        missing = [name for name in _NEEDED if find_spec(name) is None]
        if missing:
            named = " and ".join(missing)
            raise QGateError(f"the html report needs {named}; install it: pip install 'pytest-qgate[html]'")

    def write(self, result: Result, destination: Path | None) -> None:
        """Write `result` as a page."""
        from qgate.reporting.html.page import page

        write_text(page(result), destination)
