"""A result as rows of text, one a limit, the worst first: what every table shows."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from qgate.reporting.bars import Marks
from qgate.reporting.figures import MISSING, Unit, between, milliseconds, optional, seconds, unit_of
from qgate.reporting.text import KEPT_TOGETHER
from qgate.reporting.training import training_lines

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from qgate.results import ModelResult, Result, Verdict

HEADINGS = ("limit", "float32", "int8", "measured", "interval", "required", "margin", "verdict")

_SEVERITY = {"error": 0, "failed": 1, "inconclusive": 2, "passed": 3}


@dataclass(frozen=True)
class Row:
    """One limit, ready to be printed."""

    name: str
    baseline: str
    candidate: str
    measured: str
    interval: str
    limit: str
    margin: str
    status: str


def rows(model: ModelResult) -> list[Row]:
    """Give one row a limit: errors first, then by how much of the limit is left."""
    return [_row(verdict, model) for verdict in worst_first(model)]


def worst_first(model: ModelResult) -> list[Verdict]:
    """Sort the verdicts by severity, then by the margin as a share of the limit."""
    return sorted(model.verdicts, key=lambda verdict: (_SEVERITY[verdict.status], _relative_margin(verdict)))


def models_worst_first(result: Result) -> list[tuple[str, ModelResult]]:
    """Sort the models by their worst verdict; equals stay in file order."""
    return sorted(result.models.items(), key=lambda item: _worst(item[1]))


def standing(result: Result) -> str:
    """Say in a word where the gate stands: `PASSED`, `PARTIAL` (what was judged held), `INCONCLUSIVE` or `FAILED`."""
    statuses = {verdict.status for model in result.models.values() for verdict in model.verdicts}
    if not statuses or _unjudged(result) or statuses & {"failed", "error"}:
        return "FAILED"
    if "inconclusive" in statuses:
        return "INCONCLUSIVE"
    return "PARTIAL" if result.not_judged else "PASSED"


def headline(result: Result) -> str:
    """Say in one line whether the gate passed, and what it missed."""
    verdicts = [(model, verdict) for model, found in result.models.items() for verdict in found.verdicts]
    missed = [(model, verdict.name) for model, verdict in verdicts if verdict.status != "passed"]
    unjudged = _unjudged(result) if verdicts else []
    said = [
        *([f"{len(missed)} of {_count(len(verdicts))} not held: {listed(missed)}"] if missed else []),
        *([f"nothing was judged of {', '.join(unjudged)}"] if unjudged else []),
    ]
    whole = f"{_count(len(verdicts))} held" if verdicts else "nothing was judged"
    left_out = [f"{_count(len(result.not_judged))} not judged"] if result.not_judged else []
    return f"qgate: {standing(result)}, {'; '.join([*(said or [whole]), *left_out])}"


def _unjudged(result: Result) -> list[str]:
    """Name the models that have no verdict, although no limit was left out."""
    return [] if result.not_judged else [name for name, model in result.models.items() if not model.verdicts]


def caption(name: str, model: ModelResult) -> str:
    """Describe a model in one line: what was quantized how, and on how much it was judged."""
    recipe = [str(model.quantization[key]) for key in ("approach", "backend") if key in model.quantization]
    return f"{name}: {' '.join(['int8', *recipe])}, {model.num_evaluation_samples} evaluation samples"


def footer(model: ModelResult) -> Iterator[tuple[str, str]]:
    """Give labelled lines for below a table: speed, where the time went, notes, reasons of what did not pass."""
    speed = model.metrics.get("speedup", {})
    if speed.get("forms"):
        times = listed((form, optional(milliseconds, time)) for form, time in speed["forms"].items())
        yield "speed", f"{times}; compared with {speed.get('baseline_form', MISSING)}"
    yield from training_lines(model)
    if model.seconds:
        yield "time", _where_time_went(model.seconds)
    yield from (("note", note) for note in model.notes)
    yield from _reasons(model)


def _reasons(model: ModelResult) -> Iterator[tuple[str, str]]:
    """Say why limits did not pass; those that share a reason share a line."""
    names: dict[tuple[str, str], list[str]] = {}
    for verdict in worst_first(model):
        if verdict.status != "passed":
            names.setdefault((verdict.status, verdict.message), []).append(verdict.name)
    for (status, message), limits in names.items():
        yield status, f"{', '.join(limits)}: {message or 'no reason given'}"


def figures_of(verdict: Verdict, model: ModelResult) -> Mapping[str, Any]:
    """Give what was measured of a verdict's metric or slice; empty where it was not."""
    figures: Mapping[str, Any] = model.metrics.get(verdict.metric, {})
    if verdict.slice is None:
        return figures
    return next((item for item in figures.get("limited_slices", ()) if item["where"] == verdict.slice), {})


def marks_of(verdict: Verdict) -> Marks | None:
    """Give what a drawing of a limit shows; None where nothing was measured."""
    if verdict.measured is None or not math.isfinite(verdict.measured):
        return None
    is_floor = _is_floor(verdict)
    from_zero = verdict.limit in ("max_drop", "max_regression")  # where int8 is as good as what it is compared with
    return Marks(verdict.measured, verdict.limit_value, verdict.interval, is_floor, from_zero)


def _row(verdict: Verdict, model: ModelResult) -> Row:
    figures = figures_of(verdict, model)
    unit = unit_of(verdict.metric)
    return Row(
        name=verdict.name,
        baseline=optional(unit.arm, figures.get("baseline")),
        candidate=optional(unit.arm, figures.get("candidate")),
        measured=optional(unit.measured, verdict.measured),
        interval=between(unit, verdict.interval),
        limit=f"{'>=' if _is_floor(verdict) else '<='} {unit.limit(verdict.limit_value)}",
        margin=_margin_text(verdict, unit),
        status=verdict.status,
    )


def _margin_text(verdict: Verdict, unit: Unit) -> str:
    return optional(unit.margin, _margin(verdict))


def _margin(verdict: Verdict) -> float | None:
    if verdict.measured is None:
        return None
    margin = verdict.limit_value - verdict.measured
    return -margin if _is_floor(verdict) else margin


def _relative_margin(verdict: Verdict) -> float:
    margin = _margin(verdict)
    return float("-inf") if margin is None else margin / (abs(verdict.limit_value) or 1.0)


def _is_floor(verdict: Verdict) -> bool:
    return verdict.limit.startswith(("lower_", "min_"))


def _worst(model: ModelResult) -> int:
    return min((_SEVERITY[verdict.status] for verdict in model.verdicts), default=0)


def _where_time_went(spent: dict[str, float]) -> str:
    """List the steps, the longest first; those too short to show are left out."""
    steps = sorted(((step, time) for step, time in spent.items() if step != "total"), key=lambda item: -item[1])
    total = [("total", spent["total"])] if "total" in spent else []
    shown = [(step, seconds(time)) for step, time in [*steps, *total]]
    return listed(item for item in shown if item[0] == "total" or item[1] != seconds(0))


def listed(pairs: Iterable[tuple[str, str]]) -> str:
    """List pairs of a name and its figure; a line is not broken within one."""
    return ", ".join(" ".join(pair).replace(" ", KEPT_TOGETHER) for pair in pairs)


def _count(limits: int) -> str:
    return f"{limits} limit{'' if limits == 1 else 's'}"
