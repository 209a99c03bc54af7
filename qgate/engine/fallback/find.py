"""The layers of one quantized model that must be float for its limits on accuracy to hold."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from qgate.engine.digest import digest, relevant
from qgate.engine.fallback.costs import spare_bytes, spare_seconds
from qgate.engine.fallback.search import Candidate, Measures, Room, search, search_quietest
from qgate.engine.fallback.standard import missed_limits
from qgate.engine.heldout import HeldOutMetrics, hold_out
from qgate.engine.layer_times import added_seconds
from qgate.engine.probe import Probe, spread
from qgate.engine.variants import Variants
from qgate.errors import DataError
from qgate.quantization.sensitivity import layer_noise

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from qgate.config.model import ModelConfig, Settings
    from qgate.engine.load import Inputs
    from qgate.engine.progress import Progress
    from qgate.plugins import Registry

__all__ = ["Case", "Fallback", "decided_by", "find_fallback"]

_PROBED = 4  # samples on which noise on the outputs is measured, for each of many sets of layers


@dataclass(frozen=True)
class Case:
    """A quantized model for which layers to keep float are looked for.

    `chosen` are the calibration samples, `judged` the fingerprints of the evaluation samples; `timed` says that limits
    on speed count.
    """

    model: ModelConfig
    settings: Settings
    registry: Registry
    inputs: Inputs
    chosen: Sequence[int]
    judged: Sequence[str]
    artifact: Path
    timed: bool

    @property
    def limits_speed(self) -> bool:
        """Say whether there is a limit on speed that counts."""
        return self.timed and "lower_bound" in getattr(self.model.thresholds.get("speedup"), "limits", {})


@dataclass(frozen=True)
class Fallback:
    """The layers to keep float, with their costs, or the reason why there are none: "" where no limit is missed.

    `ignored_scope` names the layers and what their kernels take in; `measured_on` says which samples told.
    `noise` is that on the outputs before and after, as a share of the signal. `judged` says that limits were tried,
    `cut_short` that time was up before the search had ended.
    """

    layers: tuple[Candidate, ...]
    ignored_scope: tuple[str, ...]
    reason: str
    measured_on: str
    noise: tuple[float, float]
    judged: bool = True
    cut_short: bool = False

    def described(self) -> dict[str, Any]:
        """Give it JSON-able: times in seconds, and the ratio of the signal to each layer's own noise in dB."""
        layers = [
            {"layer": item.layer, "snr": _decibels(item.noise), "seconds": item.seconds, "bytes": item.bytes}
            for item in self.layers
        ]
        ignored = list(self.ignored_scope)
        return {
            "layers": layers,
            "ignored_scope": ignored,
            "measured_on": self.measured_on,
            "reason": self.reason or None,
        }

    def __str__(self) -> str:
        """Say what was found in a sentence, "" where nothing had to be."""
        if not self.layers:
            return f"fallback: no layer is kept float: {self.reason}" if self.reason else ""
        before, after = (_decibels(share) for share in self.noise)
        limits = f"{self.measured_on} keep the limits" if self.judged else f"no limit was tried on {self.measured_on}"
        return (
            f"fallback: kept float: {', '.join(map(_said, self.layers))}; the outputs' signal to noise rises from "
            f"{before:.1f} to {after:.1f} dB, and {limits}"
        )


def decided_by(case: Case) -> list[Any]:
    """Give what decides which layers are best kept float, beside the artifact."""
    recipe = case.model.quantization
    tables = [relevant(table) for table in case.model.thresholds.values()]
    said = [recipe.fallback.max_layers, recipe.ignored_scope, relevant(case.model.timing), case.limits_speed]
    return [tables, case.settings.confidence, case.settings.on_inconclusive, said, _tried_on(case)]


def _tried_on(case: Case) -> list[Any]:
    """Identify the held-out samples and their targets; none where there are none to try layers on."""
    try:
        held_out = hold_out(case.inputs.calibration, case.chosen, case.judged, case.settings.seed).samples
    except DataError:
        return []
    return [[held_out.fingerprint(index), digest(held_out.sample(index).target)] for index in range(len(held_out))]


def find_fallback(case: Case, max_layers: int, progress: Progress, max_seconds: float = math.inf) -> Fallback:
    """Look for the fewest layers, at most `max_layers`, that must be float for the limits on accuracy to hold.

    Held-out calibration samples tell whether they hold: by the limits' own metrics where there are labels or none are
    needed, else only by the noise on the outputs. After `max_seconds`, what is being tried is the last. Raises
    `QGateError`.
    """
    deadline = time.monotonic() + max_seconds
    bench = _Bench(case, progress)
    if bench.trials.tables and not bench.missed(()):
        return Fallback((), (), "", str(bench.trials.held_out), (math.nan, math.nan))
    known, spare = bench.candidates(), bench.room()
    if bench.trials.tables:
        measures = Measures(bench.noise, bench.missed, lambda: time.monotonic() > deadline)
        found = search(known, max_layers, spare, measures)
    else:
        found = search_quietest(known, max_layers, spare, bench.noise)
    kept = tuple(item for layer in found.layers for item in known if item.layer == layer)
    names = tuple(name for layer in found.layers for name in bench.variants.fused_names(layer))
    measured_on, judged = str(bench.trials.held_out), bool(bench.trials.tables)
    return Fallback(kept, names, found.reason, measured_on, found.noise, judged, found.cut_short)


class _Bench:
    """What sets of layers are tried with."""

    def __init__(self, case: Case, progress: Progress) -> None:
        held_out = hold_out(case.inputs.calibration, case.chosen, case.judged, case.settings.seed)
        self.case = case
        self.progress = progress
        self.variants = Variants.of(case.inputs.loaded, case.artifact, case.registry)
        self.probe = Probe.of(case.inputs, spread(case.chosen, _PROBED))
        self.trials = HeldOutMetrics(case.inputs.loaded, held_out, case.model.thresholds, case.registry, case.settings)

    def candidates(self) -> list[Candidate]:
        """Measure each layer's own noise, and its cost in time where limits on speed count."""
        case, variants = self.case, self.variants
        noise = layer_noise(variants.floats, variants.reference, self.probe.batches)
        shares = {layer.layer: layer.alone.share for layer in noise}
        times = added_seconds(case.inputs.loaded, case.artifact, case.registry) if case.limits_speed else {}
        return [
            Candidate(layer, shares.get(layer, 0.0), times.get(layer, 0.0), variants.added_bytes(layer))
            for layer in variants.layers
        ]

    def room(self) -> Room:
        """Measure what limits on speed and size leave."""
        case = self.case
        loaded = case.inputs.loaded
        seconds = (
            spare_seconds(case.model, loaded, case.artifact, case.registry, self.progress)
            if case.limits_speed
            else math.inf
        )
        return Room(seconds, spare_bytes(case.model, loaded, case.artifact))

    def noise(self, layers: Sequence[str]) -> float:
        """Give the noise on the outputs with some layers float."""
        self.progress.advance()
        return self.probe.noise(self.variants.graph(layers))

    def missed(self, layers: Sequence[str]) -> str:
        """Say which limits on accuracy held-out samples miss with some layers float, "" where they keep all."""
        held_out, case = self.trials.held_out, self.case
        figures = self.trials.figures(self.variants.lowered(layers), self.progress)
        sure = case.settings.on_inconclusive == "fail"
        verdicts = missed_limits(case.model.limit_tables, figures, len(held_out.samples), len(case.judged), sure=sure)
        said = ", ".join(
            f"{verdict.name} = {verdict.limit_value:g} (it is {verdict.measured:.4f})" for verdict in verdicts
        )
        return f"{held_out} miss {said}" if said else ""


def _said(candidate: Candidate) -> str:
    costs = [f"{candidate.seconds * 1e3:+.2f} ms"] * bool(candidate.seconds) + [f"{candidate.bytes} bytes"]
    return f'"{candidate.layer}" ({_decibels(candidate.noise):.1f} dB by itself; {", ".join(costs)})'


def _decibels(share: float) -> float:
    return -10 * math.log10(share) if share else math.inf
