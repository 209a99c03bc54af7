"""The report formats of the core, and what `FORMAT:DEST` on a command line means."""

from __future__ import annotations

import sys
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from qgate.errors import QGateError
from qgate.files import write_atomically
from qgate.reporting.comparison import comparisons
from qgate.reporting.rows import HEADINGS, KEPT_TOGETHER, caption, footer, headline, models_worst_first, rows

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from qgate.plugins import Registry
    from qgate.protocols import Reporter
    from qgate.results import ModelResult, Result


class JsonReporter:
    """The content of `results.json`."""

    name: ClassVar[str] = "json"

    def write(self, result: Result, destination: Path | None) -> None:
        """Write `result` as JSON."""
        write_text(result.to_json(), destination)


class MarkdownReporter:
    """A table a model, for a comment on a merge request."""

    name: ClassVar[str] = "markdown"

    def write(self, result: Result, destination: Path | None) -> None:
        """Write `result` as GitHub-flavoured Markdown."""
        write_text(markdown(result), destination)


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
        sys.stdout.write(text)
        sys.stdout.flush()
    else:
        write_atomically(destination, text.encode())


def markdown(result: Result) -> str:
    """Give a result as GitHub-flavoured Markdown."""
    return "\n".join(_markdown(result)) + "\n"


def _markdown(result: Result) -> Iterator[str]:
    yield f"### {_escape(headline(result))}"
    if result.not_judged:
        yield from ("", f"not judged: {_escape('; '.join(result.not_judged))}")
    for comparison in comparisons(result):
        yield from ("", "side by side, with the same float32 on the same data", "")
        yield from _markdown_table(comparison.headings, comparison.rows)
    for name, model in models_worst_first(result):
        yield ""
        yield from _markdown_model(name, model)


def _markdown_table(headings: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> Iterator[str]:
    """Write a table whose first and last columns are text; a last cell that is no good news is bold."""
    yield _line(headings)
    yield _line(("---", *["---:"] * (len(headings) - 2), "---"))
    for row in rows:
        *cells, status = map(_escape, row)
        yield _line((*cells, status if status in {"passed", ""} else f"**{status}**"))


def _markdown_model(name: str, model: ModelResult) -> Iterator[str]:
    yield _escape(caption(name, model))
    yield ""
    yield from _markdown_table(HEADINGS, map(astuple, rows(model)))
    yield ""
    yield from (f"- {label}: {_escape(text)}" for label, text in footer(model))


def _line(cells: tuple[str, ...]) -> str:
    return f"| {' | '.join(cells)} |"


def _escape(text: str) -> str:
    for character in "\\|_*<>[]`":
        text = text.replace(character, f"\\{character}")
    return text.replace(KEPT_TOGETHER, " ")
