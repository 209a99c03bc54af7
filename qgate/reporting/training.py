"""A training in a few lines: how it went, what it bought over the recipe without it, and whether it was needed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qgate.reporting.figures import number, optional

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from qgate.results import ModelResult

__all__ = ["training_lines"]

_SHOWN = 10  # epochs of a curve


def training_lines(model: ModelResult) -> Iterator[tuple[str, str]]:
    """Give labelled lines; none where nothing was trained."""
    training = model.training
    if not training:
        return
    yield "training", _how_it_went(training)
    yield "curve", f"validation loss by epoch: {_curve(training['curve'])}"
    bought = {name: figures["ptq"] for name, figures in model.metrics.items() if "ptq" in figures}
    if bought:
        yield "bought", "; ".join(_bought(name, model.metrics[name], bought[name]) for name in bought)
        yield "advice", _advice(training, bought)


def _how_it_went(training: Mapping[str, Any]) -> str:
    samples = f"{training['samples']} samples and {training['validation_samples']} to validate with"
    left_out = f" ({training['left_out']} left out: they are evaluation samples)" if training["left_out"] else ""
    together = f", {training['processes']} processes" if training["processes"] > 1 else ""
    epochs = len(training["curve"]) - 1
    best = f"epoch {training['best_epoch']} of {epochs} is kept"
    kept = best if training["best_epoch"] else "no epoch was better than no training"
    return f"{training['loss']}, {samples}{left_out}, {_minutes(training)} on {training['device']}{together}; {kept}"


def _curve(curve: list[Mapping[str, Any]]) -> str:
    stride = -(-len(curve) // _SHOWN)
    shown = [*curve[:-1:stride], curve[-1]]
    return ", ".join(f"{epoch['epoch']}: {optional(_loss, epoch['validation_loss'])}" for epoch in shown)


def _bought(name: str, figures: Mapping[str, Any], ptq: Mapping[str, Any]) -> str:
    interval = ptq["gain_interval"]
    spread = f" ({_signed(interval[0])} to {_signed(interval[1])})" if interval else ""
    values = f"{optional(number, ptq['value'])} without training, {optional(number, figures['candidate'])} with"
    return f"{name} {values}: gained {optional(_signed, ptq['gain'])}{spread}"


def _advice(training: Mapping[str, Any], bought: Mapping[str, Mapping[str, Any]]) -> str:
    if training.get("untrained_status") == "passed":
        return 'every limit on accuracy holds without training: approach = "ptq" is enough'
    intervals = [item["gain_interval"] for item in bought.values() if item["gain_interval"]]
    if any(low > 0 for low, _ in intervals):
        return f"training is worth its {_minutes(training)}: limits do not hold without it, and the gain is no chance"
    return (
        f"limits do not hold without training, but the evaluation samples do not show that {_minutes(training)} of it "
        "gained anything"
    )


def _minutes(training: Mapping[str, Any]) -> str:
    return f"{training['seconds'] / 60:.1f} minutes"


def _loss(value: float) -> str:
    return f"{value:.3g}"


def _signed(value: float) -> str:
    return f"{value:+.4f}"
