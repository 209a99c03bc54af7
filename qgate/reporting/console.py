"""What `qgate report`, `qgate check` and `pytest --qgate` end with: the verdict first, then why, and what to do."""

from __future__ import annotations

import io
import textwrap
from typing import TYPE_CHECKING, TypeVar

from rich.console import Console
from rich.text import Text

from qgate.reporting.bars import ASCII, UNICODE
from qgate.reporting.comparison import comparisons
from qgate.reporting.limits import fitting_table
from qgate.reporting.rows import caption, footer, headline, models_worst_first, standing
from qgate.reporting.sections import against_blessed, kernels, missing, next_steps, worst_slices
from qgate.reporting.tables import STYLES, comparison_table, forms_table, layers_table, losers_table
from qgate.reporting.text import KEPT_TOGETHER, encodable, is_drawable, printable, spelled

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rich.table import Table

    from qgate.reporting.bars import Glyphs
    from qgate.results import ModelResult, Result

__all__ = ["print_labelled", "print_result", "printed", "render"]

T = TypeVar("T")

_BELOW = ("speed", "time")  # of the footer: the one is drawn, the other stands below the sections


def render(result: Result, *, width: int = 80, color: bool = False, encoding: str | None = None) -> str:
    """Give the verdict, then each model, the worst first, as text for a terminal of `width` columns.

    What its `encoding` (None: UTF-8) has no characters for is drawn or spelled in ASCII.
    """
    return printed(result, print_result, width, color, encoding)


def printed(shown: T, draw: Callable[[Console, T, Glyphs], None], width: int, color: bool, encoding: str | None) -> str:
    """Give what `draw` prints of what is shown, without the blanks that end its lines."""
    stream = io.StringIO()
    console = Console(file=stream, width=width, force_terminal=color, no_color=not color, legacy_windows=False)
    if is_drawable(encoding):
        draw(console, shown, UNICODE)
    else:
        draw(console, spelled(shown, encoding), ASCII)
    lines = (line.rstrip() for line in stream.getvalue().split("\n"))
    return encodable("\n".join(lines).rstrip("\n") + "\n", encoding)


def print_result(console: Console, result: Result, glyphs: Glyphs) -> None:
    """Print a result on a console, drawn with `glyphs`."""
    label, _, line = headline(result).partition(" ")
    print_labelled(console, label, line, STYLES[standing(result).lower()], head=standing(result))
    if result.not_judged:
        print_labelled(console, "not judged:", "; ".join(result.not_judged), "yellow")
    for comparison in comparisons(result):
        _print_section(console, comparison_table(comparison))
    for name, model in models_worst_first(result):
        console.print()
        _print_model(console, name, model, glyphs)


def print_labelled(console: Console, label: str, text: str, style: str = "", *, head: str = "") -> None:
    """Print `text` after a label, wrapped below itself between words; a path stays whole.

    `style` is that of the label, and of `head`, with which the text begins.
    """
    wrapped = textwrap.wrap(
        f"{label} {printable(text)}",
        console.width,
        subsequent_indent=" " * min(len(label) + 1, console.width // 3),
        break_long_words=False,
        break_on_hyphens=False,
    )
    content = Text("\n".join(wrapped).replace(KEPT_TOGETHER, " "))
    content.stylize(style, 0, len(f"{label} {head}"))
    console.print(content, soft_wrap=True)


def _legend(console: Console, glyphs: Glyphs) -> None:
    """Say what the characters of a bar are."""
    interval = f"{glyphs.low}{glyphs.between}{glyphs.high}"
    said = f"{glyphs.measured} measured, {interval} its interval, {glyphs.limit} the limit, {glyphs.beyond} beyond it"
    console.print(Text(said, style="dim"), soft_wrap=True)


def _print_model(console: Console, name: str, model: ModelResult, glyphs: Glyphs) -> None:
    print_labelled(console, *_split(caption(name, model)), "bold")
    if lacking := missing(model):
        print_labelled(console, "missing:", lacking, STYLES["missing"])
    if model.verdicts:
        console.print(fitting_table(console, model, glyphs))
    if any(verdict.measured is not None for verdict in model.verdicts):
        _legend(console, glyphs)
    for label, text in _remarks(model):
        print_labelled(console, f"{label}:", text, STYLES.get(label, ""))
    width = console.width
    _print_section(console, losers_table(model, glyphs, width))
    if any(loser.interval is None for loser in worst_slices(model)):
        print_labelled(console, "without an interval:", "its targets are in too few samples for one", "dim")
    for table in (forms_table(model, glyphs, width), layers_table(model)):
        _print_section(console, table)
    for label, text in _foot(name, model):
        print_labelled(console, f"{label}:", text, STYLES.get(label, ""))


def _remarks(model: ModelResult) -> Iterator[tuple[str, str]]:
    """Give what is said right below the limits: how int8 differs from the blessed one, notes, and reasons."""
    changes = ((metric, against_blessed(metric, figures)) for metric, figures in model.metrics.items())
    if said := ", ".join(f"{metric} {change}" for metric, change in changes if change):
        yield "against blessed", said
    yield from ((label, text) for label, text in footer(model) if label not in _BELOW)


def _foot(name: str, model: ModelResult) -> Iterator[tuple[str, str]]:
    if ran := kernels(model):
        yield "int8 ran by", ran
    yield from ((label, text) for label, text in footer(model) if label == "time")
    yield from (("next", step) for step in next_steps(name, model))


def _print_section(console: Console, table: Table | None) -> None:
    if table is not None:
        console.print()
        console.print(table)


def _split(line: str) -> tuple[str, str]:
    label, _, text = printable(line).rpartition(": ")
    return f"{label}:", text
