"""A result as GitHub-flavoured Markdown: for a comment on a merge request, and for a step's summary."""

from __future__ import annotations

import math
import re
from dataclasses import astuple, dataclass
from typing import TYPE_CHECKING, ClassVar

from qgate.reporting.comparison import comparisons
from qgate.reporting.figures import MISSING, milliseconds, optional
from qgate.reporting.rows import HEADINGS, caption, figures_of, footer, headline, models_worst_first, rows, worst_first
from qgate.reporting.sections import (
    against_blessed,
    forms,
    kernels,
    loser_cells,
    missing,
    next_steps,
    slowest,
    worst_slices,
)
from qgate.reporting.text import KEPT_TOGETHER, printable, shortened, write_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from qgate.reporting.comparison import Comparison
    from qgate.results import ModelResult, Result

__all__ = ["MAX_CHARACTERS", "MarkdownReporter", "markdown"]

# Of a comment on GitHub. A step's summary may have 1 MiB, which as many characters of UTF-8 cannot exceed.
MAX_CHARACTERS = 65_536

_ESCAPES = str.maketrans(
    {
        **{char: f"\\{char}" for char in "\\`*_{}[]<>~|&$"},
        **{char: f"{char}<!-- -->" for char in "@#"},  # a backslash would not keep them from calling people and issues
        KEPT_TOGETHER: " ",
    }
)
_LINKED = re.compile(r"GH-|www|:(?=//)", re.IGNORECASE)  # GitHub makes links of GH-1, www.x.y and addresses


@dataclass(frozen=True)
class _Room:
    """How much is said: models, rows of a table, characters of a text, and whether details are."""

    models: float = math.inf
    rows: float = math.inf
    characters: float = math.inf
    details: bool = True

    def of(self, items: Sequence[str]) -> Iterator[str]:
        """Give the first rows, and say how many are left out."""
        shown = items[: int(min(self.rows, len(items)))]
        yield from shown
        if len(shown) < len(items):
            yield f"\nand {len(items) - len(shown)} more, which have no room here."

    def text(self, text: str) -> str:
        """Escape a text, its end cut off where it is too long."""
        return _escape(shortened(text, self.characters))


# The first that fits is taken; the last always does, for no character takes more than ten.
_ROOMS = (
    _Room(),
    _Room(details=False),
    _Room(models=20, rows=100, characters=300, details=False),
    _Room(models=10, rows=20, characters=200, details=False),
    _Room(models=3, rows=5, characters=100, details=False),
)


class MarkdownReporter:
    """A table a model with its details folded, for a comment on a merge request."""

    name: ClassVar[str] = "markdown"

    def write(self, result: Result, destination: Path | None) -> None:
        """Write `result` as GitHub-flavoured Markdown."""
        write_text(markdown(result), destination)


def markdown(result: Result) -> str:
    """Give a result as GitHub-flavoured Markdown of at most `MAX_CHARACTERS`: what has least weight is left out."""
    for room in _ROOMS:
        text = "\n".join(_report(result, room)) + "\n"
        if len(text) <= MAX_CHARACTERS:
            break
    return text


def _report(result: Result, room: _Room) -> Iterator[str]:
    yield f"### {room.text(headline(result))}"
    if result.not_judged:
        yield from ("", f"not judged: {room.text('; '.join(result.not_judged))}")
    for comparison in comparisons(result):
        yield from ("", "Side by side, with the same float32 on the same data:", "")
        yield from room.of(list(_side_by_side(comparison, room)))
    models = models_worst_first(result)
    for name, model in models[: int(min(room.models, len(models)))]:
        yield ""
        yield from _model(name, model, room)
    if len(models) > room.models:
        yield from ("", f"and {len(models) - int(room.models)} more models, which have no room here.")
    if room.details:
        yield from _details("This run", _run(result))
    else:
        yield from ("", "Details have no room here: `qgate report` shows them.")


def _model(name: str, model: ModelResult, room: _Room) -> Iterator[str]:
    yield f"#### {room.text(caption(name, model))}"
    yield ""
    if model.verdicts:
        yield from room.of(list(_limits(model, room)))
        yield ""
    said = [("missing", lacking)] if (lacking := missing(model)) else []
    said += [(label, text) for label, text in footer(model) if label not in ("speed", "time")]
    said += [("next", step) for step in next_steps(name, model)]
    yield from room.of([f"- {label}: {room.text(text)}" for label, text in said])
    if room.details:
        yield from _details("What lost most", _losers(model))
        yield from _details("Where the time goes", _times(model))


def _side_by_side(comparison: Comparison, room: _Room) -> Iterator[str]:
    yield _table_head([*map(room.text, comparison.headings)], names=1, last_left=True)
    for *cells, status in comparison.rows:
        yield _line((*map(room.text, cells), status if status in {"passed", ""} else f"**{status}**"))


def _limits(model: ModelResult, room: _Room) -> Iterator[str]:
    verdicts = worst_first(model)
    blessed = [against_blessed(verdict.metric, figures_of(verdict, model)) for verdict in verdicts]
    added = ["against blessed"] if any(blessed) else []
    yield _table_head((*HEADINGS[:-1], *added, HEADINGS[-1]), names=1, last_left=True)
    for row, change in zip(rows(model), blessed, strict=True):
        *cells, status = astuple(row)
        shown = [room.text(cell) for cell in (*cells, *([change or MISSING] if added else []))]
        yield _line((*shown, status if status == "passed" else f"**{status}**"))


def _details(summary: str, lines: Iterable[str]) -> Iterator[str]:
    """Fold lines away; nothing where there are none."""
    folded = list(lines)
    if folded:
        yield from ("", f"<details><summary>{summary}</summary>", "", *folded, "", "</details>")


def _losers(model: ModelResult) -> Iterator[str]:
    found = worst_slices(model)
    if found:
        yield _table_head(("slice", "float32", "int8", "drop", "interval", "targets"), names=1)
        yield from (_line([_escape(cell) for cell in loser_cells(loser)]) for loser in found)


def _times(model: ModelResult) -> Iterator[str]:
    if timed := forms(model):
        yield _table_head(("form", "time", ""), names=1)
        for form in timed:
            said = "compared with" if form.is_baseline else ""
            yield _line((_escape(form.name), milliseconds(form.seconds), said))
        yield ""
    if layers := slowest(model):
        yield _table_head(("most time is lost in", "float32", "int8"), names=1)
        for layer in layers:
            times = (optional(milliseconds, layer.get(arm)) for arm in ("float32", "int8"))
            yield _line((_escape(str(layer.get("layer"))), *times))
        yield ""
    yield from ([f"- int8 ran by: {_escape(ran)}"] if (ran := kernels(model)) else [])
    yield from (f"- this run: {_escape(text)}" for label, text in footer(model) if label == "time")


def _run(result: Result) -> Iterator[str]:
    environment = result.environment
    said = {
        "commit": environment.get("git_commit"),
        "machine": environment.get("cpu"),
        "instruction sets": ", ".join(environment.get("isa") or ()),
        "threads": environment.get("num_threads"),
        "qgate": result.qgate_version,
        "torch": environment.get("torch"),
        "run at": result.created,
        "configuration": result.config_path,
        "its sha256": result.config_sha256,
    }
    yield from (f"- {label}: {_escape(str(value))}" for label, value in said.items() if value)


def _table_head(headings: Sequence[str], *, names: int, last_left: bool = False) -> str:
    figures = len(headings) - names - last_left
    rule = [*["---"] * names, *["---:"] * figures, *["---"] * last_left]
    return f"{_line(headings)}\n{_line(rule)}"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _escape(text: str) -> str:
    """Give text that says itself: no markup, no cell's end, no entity, nobody called."""
    return _LINKED.sub(r"\g<0><!-- -->", printable(text).translate(_ESCAPES))
