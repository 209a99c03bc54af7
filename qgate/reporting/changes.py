"""Two runs side by side, as text or as JSON."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.text import Text

from qgate.reporting.console import print_labelled, printed
from qgate.reporting.figures import between, optional, unit_of
from qgate.reporting.rows import standing
from qgate.reporting.tables import STYLES, add_columns, new_table
from qgate.reporting.text import printable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rich.console import Console
    from rich.table import Table

    from qgate.engine.changes import ChangedFigure, ChangedVerdict, ModelChanges, RunChanges
    from qgate.reporting.figures import Unit
    from qgate.results import Result

__all__ = ["as_json", "as_text", "run_label"]

_COMMIT = 10  # characters of a hash
_MINUTES = 16  # characters of a time, to the minute


def as_json(changes: RunChanges) -> dict[str, Any]:
    """Give both runs, and of each model all figures with what their change is, all verdicts, and the worst slices."""
    runs = {"before": _run(changes.before), "after": _run(changes.after)}
    return {"schema_version": 1, **runs, "models": {name: _model(one) for name, one in changes.models.items()}}


def as_text(changes: RunChanges, names: tuple[str, str], **terminal: Any) -> str:
    """Write what changed, then each model's figures; `names` are those of the runs, `terminal` as `render` takes it."""
    return printed(changes, lambda console, shown, _: _print(console, shown, names), **terminal)


def run_label(result: Result) -> tuple[str, str, str]:
    """Say when a run was, of which commit ("" where that is not known), and where the gate stood."""
    commit = result.environment.get("git_commit") or ""
    when = result.created[:_MINUTES].replace("T", " ")
    return printable(when), printable(str(commit)[:_COMMIT]), standing(result)


def _run(result: Result) -> dict[str, Any]:
    commit = result.environment.get("git_commit")
    return {"created": result.created, "git_commit": commit, "standing": standing(result)}


def _model(one: ModelChanges) -> dict[str, Any]:
    figures = [{**asdict(figure), "conclusion": figure.conclusion} for figure in one.figures]
    verdicts = [{**asdict(verdict), "is_changed": verdict.is_changed} for verdict in one.verdicts]
    return {**asdict(one), "figures": figures, "verdicts": verdicts}


def _print(console: Console, changes: RunChanges, names: tuple[str, str]) -> None:
    print_labelled(console, "qgate:", _headline(changes))
    for number, name, result in zip("12", names, (changes.before, changes.after), strict=True):
        when, commit, stands = run_label(result)
        print_labelled(console, number, f"{name}: {when}{commit and f', commit {commit}'}, {stands}")
    for name, one in changes.models.items():
        console.print()
        print_labelled(console, f"{printable(name)}:", _said(one), "bold")
        _print_model(console, one)


def _headline(changes: RunChanges) -> str:
    verdicts = [verdict for one in changes.models.values() for verdict in one.verdicts]
    changed = [verdict for verdict in verdicts if verdict.is_changed]
    counted = Counter(figure.conclusion for one in changes.models.values() for figure in one.figures)
    return f"{len(changed)} of {len(verdicts)} verdicts changed; figures: {_counts(counted)}"


def _said(one: ModelChanges) -> str:
    if one.only_in:
        return f"only in run {one.only_in}"
    return _counts(Counter(figure.conclusion for figure in one.figures))


def _counts(counted: Counter[Any]) -> str:
    return ", ".join(f"{count} {conclusion}" for conclusion, count in counted.items()) or "none"


def _print_model(console: Console, one: ModelChanges) -> None:
    if one.figures:
        console.print(_figures(one.figures))
    for label, text in _remarks(one):
        print_labelled(console, f"{label}:", text, STYLES.get(label, ""))
    if one.slices:
        console.print()
        console.print(_slices(one))


def _figures(figures: Sequence[ChangedFigure]) -> Table:
    table = new_table()
    add_columns(table, "int8", "1", "2", "change", "interval")
    table.add_column("")
    for figure in figures:
        unit = unit_of(figure.metric)
        values = (optional(unit.measured, value) for value in (figure.before, figure.after))
        said = Text(figure.conclusion, style=STYLES.get(figure.conclusion, ""))
        table.add_row(Text(printable(figure.name)), *values, *_change(figure, unit), said)
    return table


def _change(figure: ChangedFigure, unit: Unit) -> tuple[str, str]:
    """Write how int8's value changed, and the interval of that."""
    if not figure.worse_by:
        return "", ""
    change, interval = figure.worse_by, figure.interval
    if figure.higher_is_better:
        change, interval = -change, interval and (-interval[1], -interval[0])
    return f"{'-' if change < 0 else '+'}{unit.measured(abs(change))}", between(unit, interval)


def _remarks(one: ModelChanges) -> Iterator[tuple[str, str]]:
    yield from (remark for verdict in one.verdicts for remark in _about_verdict(verdict))
    yield from (("not comparable", f"{', '.join(names)}: {reason}") for reason, names in _differences(one).items())
    moved = [figure for figure in one.figures if _has_moved(figure)]
    if moved:
        said = (f"{figure.name} {figure.float32_before:.4f} -> {figure.float32_after:.4f}" for figure in moved)
        yield "float32 is another", ", ".join(said)


def _about_verdict(verdict: ChangedVerdict) -> Iterator[tuple[str, str]]:
    change = f"{verdict.before or 'no verdict'} -> {verdict.after or 'no verdict'}"
    if verdict.has_moved:
        limits = f"{verdict.limit_before:g} -> {verdict.limit_after:g}"
        yield "limit moved", f"{verdict.name}: {limits}{f'; {change}' if verdict.is_changed else ''}"
    elif verdict.is_changed:
        label = "better" if verdict.after == "passed" else "worse" if verdict.before == "passed" else "verdict"
        yield label, f"{verdict.name}: {change}"


def _differences(one: ModelChanges) -> dict[str, list[str]]:
    """Give the reasons why figures are not comparable, and which."""
    reasons: dict[str, list[str]] = {}
    for figure in one.figures:
        if figure.differences:
            reasons.setdefault(figure.differences, []).append(figure.name)
    return reasons


def _has_moved(figure: ChangedFigure) -> bool:
    """Say whether float32's accuracy is another on the same data: then it is another model."""
    is_accuracy = not figure.is_exact and figure.metric != "speedup"
    values = figure.float32_before, figure.float32_after
    return is_accuracy and not figure.differences and None not in values and values[0] != values[1]


def _slices(one: ModelChanges) -> Table:
    table = new_table()
    add_columns(table, "int8 got worse in", "1", "2", "worse by", "targets")
    for item in one.slices:
        unit = unit_of(item.metric)
        values = (unit.measured(value) for value in (item.before, item.after, item.worse_by))
        table.add_row(Text(printable(item.name)), *values, str(item.support))
    return table
