"""What a report says below the limits: which slices lost most, where time goes, what is missing, what to do next."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from qgate.blessed import HOW_TO_BLESS
from qgate.losers import losers
from qgate.reporting.figures import between, optional, unit_of
from qgate.reporting.rows import listed, worst_first
from qgate.results import read_interval

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from qgate.results import Interval, ModelResult, Verdict

__all__ = [
    "Form",
    "Loser",
    "against_blessed",
    "forms",
    "kernels",
    "loser_cells",
    "missing",
    "next_steps",
    "slowest",
    "worst_slices",
]

_WORST_SLICES = 5
_KERNELS = 6


@dataclass(frozen=True)
class Loser:
    """A slice that lost by int8, as the metric saw it."""

    metric: str
    kind: str
    name: str
    baseline: float | None
    candidate: float | None
    drop: float
    interval: Interval | None
    support: int


@dataclass(frozen=True)
class Form:
    """One form of a model, and its time in seconds."""

    name: str
    seconds: float
    is_baseline: bool


def worst_slices(model: ModelResult) -> list[Loser]:
    """Give the slices that lost most by the metrics that missed a limit; by the first metric where none did."""
    sliced = [metric for metric, figures in model.metrics.items() if figures.get("slices")]
    missed = {verdict.metric for verdict in model.verdicts if verdict.status != "passed"}
    chosen = [metric for metric in sliced if metric in missed] or sliced[:1]
    return [loser for metric in chosen for loser in _losers(metric, model.metrics[metric]["slices"])]


def loser_cells(loser: Loser) -> tuple[str, ...]:
    """Write a slice: its name, both arms' values, the drop, its interval where it has one, and its targets."""
    unit = unit_of(loser.metric)
    arms = optional(unit.arm, loser.baseline), optional(unit.arm, loser.candidate)
    spread = between(unit, loser.interval)
    name = f"{loser.metric} {loser.kind} {loser.name}"
    return (name, *arms, unit.measured(loser.drop), spread, str(loser.support))


def against_blessed(metric: str, figures: Mapping[str, Any]) -> str:
    """Say how int8 differs from what was blessed of a metric or slice; "" where nothing is."""
    worse_by = figures.get("regression")
    if "not_comparable" in figures:
        return "not comparable"
    if worse_by is None or "blessed" not in figures or figures.get("blessing"):
        return ""
    if worse_by == 0:
        return "same"
    unit, interval = unit_of(metric), read_interval(figures.get("regression_interval"))
    spread = f" ({between(unit, interval)})" if interval else ""
    return f"{'worse' if worse_by > 0 else 'better'} by {unit.measured(abs(worse_by))}{spread}"


def forms(model: ModelResult) -> list[Form]:
    """Give the forms that were timed, the slowest first."""
    figures = model.metrics.get("speedup", {})
    baseline = figures.get("baseline_form")
    timed = {name: seconds for name, seconds in figures.get("forms", {}).items() if seconds is not None}
    found = [Form(name, seconds, name == baseline) for name, seconds in timed.items()]
    return sorted(found, key=lambda form: -form.seconds)


def slowest(model: ModelResult) -> list[dict[str, Any]]:
    """Give the layers that keep int8 from the speed that is demanded: `layer`, and seconds in `float32` and `int8`."""
    return list(model.metrics.get("speedup", {}).get("slowest", ()))


def kernels(model: ModelResult) -> str:
    """List what the nodes of the int8 graph ran by, the most frequent first."""
    counted = sorted(model.kernels.items(), key=lambda item: -item[1])
    rest = sum(count for _, count in counted[_KERNELS:])
    shown = [*counted[:_KERNELS], *([("others", rest)] if rest else [])]
    return listed((f"{name}:", str(count)) for name, count in shown)


def missing(model: ModelResult) -> str:
    """Say what a whole run finds and this one has not; "" where nothing is missing."""
    unmeasured = dict.fromkeys(verdict.metric for verdict in model.verdicts if verdict.metric not in model.metrics)
    lacking = [
        *([] if model.artifact else ["the int8 artifact"]),
        *([] if model.num_evaluation_samples else ["the evaluation"]),
        *([f"figures of {', '.join(unmeasured)}"] if unmeasured else []),
        *([] if model.verdicts else ["every verdict"]),
    ]
    ran = [step for step in model.seconds if step != "total"]
    return f"{', '.join(lacking)}; the run came to: {', '.join(ran) or 'nothing'}" if lacking else ""


def next_steps(name: str, model: ModelResult) -> list[str]:
    """Say what to do about what has not passed, or with what has; each thing once, the worst verdict's first."""
    unsettled = [verdict for verdict in worst_first(model) if verdict.status != "passed"]
    said = [step for verdict in unsettled for step in _remedies(name, verdict, model.metrics.get(verdict.metric, {}))]
    if model.verdicts and not unsettled and model.artifact:
        said = [f"ship {model.artifact.path}: `qgate.load_artifact` reads it"]
    return list(dict.fromkeys(said))


def _losers(metric: str, slices: dict[str, dict[str, dict[str, Any]]]) -> Iterator[Loser]:
    for kind, values in slices.items():
        for name, item in losers(values, _WORST_SLICES):
            interval = read_interval(item.get("drop_interval"))
            arms = item.get("baseline"), item.get("candidate")
            yield Loser(metric, kind, name, *arms, drop=item["drop"], interval=interval, support=item["support"])


def _remedies(name: str, verdict: Verdict, figures: dict[str, Any]) -> Iterator[str]:
    if verdict.status == "error":
        yield from _about_error(verdict, figures)
    elif verdict.metric == "speedup":
        yield from _about_speed(name, verdict, figures)
    elif verdict.samples_needed:
        yield f"evaluate on about {verdict.samples_needed} samples, which would settle {verdict.name}"
    else:
        yield from _about_accuracy(name, figures)


def _about_error(verdict: Verdict, figures: dict[str, Any]) -> Iterator[str]:
    if verdict.limit == "max_regression" and figures:
        yield f"bless a run of this machine once its limits hold: {HOW_TO_BLESS}"
    else:
        yield "mend what the first error says, and run the gate again"


def _about_speed(name: str, verdict: Verdict, figures: dict[str, Any]) -> Iterator[str]:
    if verdict.status == "inconclusive":
        yield f"raise max_seconds in [models.{name}.timing], or run alone on a quiet machine"
    if figures.get("slowest") or verdict.status == "failed":
        yield f"`qgate explain {shlex.quote(name)}` shows where int8's time goes, layer by layer"


def _about_accuracy(name: str, figures: dict[str, Any]) -> Iterator[str]:
    if figures.get("ignored_scope"):
        patterns = ", ".join(f'"{pattern}"' for pattern in figures["ignored_scope"])
        yield f"keep layers float: ignored_scope = [{patterns}] in [models.{name}.quantization]"
    model = shlex.quote(name)
    yield f"`qgate explain {model} --accuracy` shows each layer's noise, `qgate tune --model {model}` tries recipes"
