"""Why a limit has not passed, in words: how much was missed, how sure that is, and what would settle it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from qgate.losers import losers

if TYPE_CHECKING:
    from qgate.config.model import ThresholdConfig
    from qgate.results import Interval

__all__ = ["Finding", "say_lost", "say_missed", "say_unsettled"]

# A slice is lost where int8 keeps less than this share of what float32 can do; both must be more than chance.
_LOST_SHARE, _LOST_SUPPORT, _LOST_BASELINE = 0.1, 20, 0.1


@dataclass(frozen=True)
class Finding:
    """One limit, and what was measured of it."""

    table: ThresholdConfig
    limit: str
    measured: float
    interval: Interval | None
    figures: dict[str, Any]

    @property
    def allowed(self) -> float:
        """Give the limit's value."""
        return self.table.limits[self.limit]

    @property
    def is_floor(self) -> bool:
        """True where what is measured must be at least the limit."""
        return self.limit == "lower_bound"

    @property
    def is_speed(self) -> bool:
        """True where more rounds of timing, not more samples, make the interval narrower."""
        return "forms" in self.figures

    @property
    def is_exact(self) -> bool:
        """True where chance has no part: a size, or int8's value, which is a floor for the data at hand."""
        return not self.is_speed and (self.limit in ("lower_bound", "upper_bound") or "value" in self.figures)

    @property
    def lost_slices(self) -> list[str]:
        """Name the slices that float32 can do and int8 cannot: a mean over many classes hides the loss of one."""
        if self.limit != "max_drop" or not self.figures["higher_is_better"]:
            return []
        return [
            f"{kind} {name} (float32 {_number(item['baseline'])}, int8 {_number(item['candidate'])})"
            for kind, values in self.figures.get("slices", {}).items()
            for name, item in values.items()
            if item["support"] >= _LOST_SUPPORT
            and item["baseline"] >= _LOST_BASELINE
            and item["candidate"] < _LOST_SHARE * item["baseline"]
        ]


def say_lost(finding: Finding, lost: list[str]) -> str:
    """Say which slices int8 has lost altogether, whatever the mean over all of them says."""
    return f"int8 has lost {', '.join(lost)}; over all, it {_change(finding)}{_advice(finding.figures)}"


def say_missed(finding: Finding) -> str:
    """Say by how much a limit is missed, and which slices lost most."""
    figures, allowed = finding.figures, finding.allowed
    if finding.limit in ("max_drop", "max_regression"):
        said = f"{_change(finding)}{_within(finding)}; allowed is {_amount(finding, allowed)}{_losers(finding)}"
        return f"{said}{_advice(figures)}"
    if "value" in figures:
        return _below(finding)
    required = f"{'at least' if finding.is_floor else 'at most'} {allowed:g} is required"
    float32 = _number(figures["baseline"])
    return f"is {_number(figures['candidate'])} in int8, {required} (float32 has {float32}){_advice(figures)}"


def say_unsettled(finding: Finding, samples_needed: int | None) -> str:
    """Say why a limit is not settled, and what would settle it."""
    if finding.is_speed and finding.limit == "lower_bound":
        said = _below(finding)
    else:
        said = f"{_change(finding)}{_within(finding)}; allowed is {_amount(finding, finding.allowed)}"
    return f"{said}: not settled; {_remedy(finding, samples_needed)}"


def _remedy(finding: Finding, samples_needed: int | None) -> str:
    if finding.is_speed:
        because = finding.figures.get("unsettled_because")
        return f"{because or 'the limit lies within'}; raise max_seconds in [timing], or run alone on a quiet machine"
    if finding.interval is None:
        return "there are too few evaluation samples to say how sure that is; use more"
    if samples_needed is None:
        return "the limit is where the measured value is, and no number of samples would settle that; move it"
    return f"about {samples_needed} evaluation samples like these would settle it"


def _below(finding: Finding) -> str:
    figures = finding.figures
    required = f"at least {finding.allowed:g} is required{_against(figures)}"
    slowest = _slowest(figures) if finding.measured < finding.allowed else ""
    return f"is {finding.measured:.3f}{_within(finding)}, {required}{slowest}"


def _change(finding: Finding) -> str:
    figures = finding.figures
    if finding.limit == "max_regression":
        return f"is worse by {_amount(finding, finding.measured)} than the blessed {_number(figures['blessed'])}"
    relation = "of" if _is_relative(finding) else "from"
    moved = "fell" if figures["candidate"] <= figures["baseline"] else "rose"
    change = abs(finding.measured) if moved == "rose" else finding.measured
    return (
        f"{moved} by {_amount(finding, change)} {relation} float32's {_number(figures['baseline'])}, "
        f"to {_number(figures['candidate'])}"
    )


def _within(finding: Finding) -> str:
    if finding.interval is None:
        return ""
    low, high = (_amount(finding, bound) for bound in finding.interval)
    return f" (interval {low} to {high})"


def _amount(finding: Finding, value: float) -> str:
    return f"{value:.2%}" if _is_relative(finding) else _number(value)


def _is_relative(finding: Finding) -> bool:
    return finding.limit == "max_drop" and finding.table.drop_type == "relative"


def _number(value: float) -> str:
    return f"{value:.4f}"


def _against(figures: dict[str, Any]) -> str:
    return f" (against float32's {figures['baseline_form']} form)" if "baseline_form" in figures else ""


def _slowest(figures: dict[str, Any]) -> str:
    """Name the layers that keep int8 from being as fast as the limit demands."""
    named = [
        f'"{item["layer"]}" ({_milliseconds(item["int8"])} int8, {_milliseconds(item["float32"])} float32)'
        for item in figures.get("slowest", ())
    ]
    return f"; most time is lost in {', '.join(named)}, see `qgate explain`" if named else ""


def _advice(figures: dict[str, Any]) -> str:
    """Name the layers with the most noise, and those that must be float, where they are known."""
    named = [f'"{item["layer"]}" ({item["snr"]:.1f} dB by itself)' for item in figures.get("noisiest", ())]
    said = f"; most noise is in {', '.join(named)}, see `qgate explain --accuracy`" if named else ""
    if "ignored_scope" not in figures:
        return said
    patterns = ", ".join(f'"{pattern}"' for pattern in figures["ignored_scope"])
    return f"{said}; with ignored_scope = [{patterns}] {figures['ignored_scope_by']} keep the limits"


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1e3:.3g} ms"


def _losers(finding: Finding) -> str:
    """Name the slice of each kind that lost most."""
    slices = finding.figures.get("slices", {}) if finding.limit == "max_drop" else {}
    worst = [
        f"{kind} {name} {item['drop']:+.4f}" for kind, values in slices.items() for name, item in losers(values, 1)
    ]
    return f"; greatest drop by {', '.join(worst)}" if worst else ""
