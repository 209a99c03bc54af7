"""Which layers to keep float: the fewest that help, by what each takes from the noise for what it costs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

__all__ = ["Candidate", "Found", "Measures", "Room", "search", "search_quietest"]

Layers = tuple[str, ...]

_REMEASURED = 8  # layers in each step but the first: those that took most noise when they were measured last
_WORTHWHILE = 0.8  # of the noise is left at most, where no limit says what is enough: 1 dB


@dataclass(frozen=True)
class Candidate:
    """A layer that may be kept float: its own noise as a share of its signal, and what it costs in time and size."""

    layer: str
    noise: float
    seconds: float = 0.0
    bytes: int = 0


@dataclass(frozen=True)
class Room:
    """What the limits on speed and size leave: by how many seconds and bytes int8 may grow, inf without a limit."""

    seconds: float = math.inf
    bytes: float = math.inf

    def holds(self, candidates: Sequence[Candidate]) -> bool:
        """Say whether there is room for all of these together."""
        seconds, size = sum(max(item.seconds, 0.0) for item in candidates), sum(item.bytes for item in candidates)
        return seconds <= max(self.seconds, 0.0) and size <= max(self.bytes, 0.0)

    def share(self, candidate: Candidate) -> float:
        """Say how much of the room a layer takes: of time or size, whichever is more."""
        if not self.holds([candidate]):
            return math.inf
        pairs = ((candidate.seconds, self.seconds), (candidate.bytes, self.bytes))
        return max(max(cost, 0) / room if room > 0 else 0.0 for cost, room in pairs)


def _never() -> bool:
    return False


@dataclass(frozen=True)
class Measures:
    """What is measured with layers kept float: the noise on the outputs, and which limits are missed, "" for none."""

    noise: Callable[[Layers], float]
    missed: Callable[[Layers], str]
    is_time_up: Callable[[], bool] = _never


@dataclass(frozen=True)
class Found:
    """What a search ended with: the layers to keep float, in the order in which they were found, or why there are none.

    `noise` is that on the outputs before and after, as a share of the signal. `cut_short` says that time was up.
    """

    layers: Layers
    reason: str
    noise: tuple[float, float]
    cut_short: bool = False


@dataclass(frozen=True)
class Step:
    """A set of layers, one larger than the last, and the noise on the outputs with it."""

    layers: Layers
    noise: float


def search(candidates: Sequence[Candidate], max_layers: int, room: Room, measures: Measures) -> Found:
    """Keep as few layers float as will do: at most `max_layers`, one after another, until no limit is missed.

    Each step takes the layer that takes most noise from the outputs for its cost: one of `max_layers`, and its share of
    the `room`. At the end, layers that turn out not to be needed are let go. No step is begun when time is up.
    """
    noise, missed = measures.noise, measures.missed
    before = noise(())
    last, said, cut_short = Step((), before), "", False
    for last in _steps(candidates, max_layers, room, before, noise):
        said = missed(last.layers)
        cut_short = bool(said) and measures.is_time_up()
        if cut_short:
            break
        if not said:
            kept = _needed(last.layers, missed)
            return Found(kept, "", (before, last.noise if kept == last.layers else noise(kept)))
    if not last.layers:
        return Found((), _why_none(candidates, room), (before, before))
    return Found((), f"with {_listed(last.layers)} float, {said} still", (before, last.noise), cut_short)


def search_quietest(
    candidates: Sequence[Candidate], max_layers: int, room: Room, noise: Callable[[Layers], float]
) -> Found:
    """Keep layers float, at most `max_layers`, as long as each takes 1 dB of noise from the outputs."""
    before = reached = noise(())
    kept: Layers = ()
    for step in _steps(candidates, max_layers, room, before, noise):
        if not step.noise <= _WORTHWHILE * reached:
            break
        kept, reached = step.layers, step.noise
    reason = "" if kept else _why_none(candidates, room)
    return Found(kept, reason, (before, reached))


def _steps(
    candidates: Sequence[Candidate], max_layers: int, room: Room, before: float, noise: Callable[[Layers], float]
) -> Iterator[Step]:
    """Keep one layer after the other, the effect of each on the outputs measured; in later steps, of the best only."""
    kept: list[Candidate] = []
    reached, left = before, dict.fromkeys(candidates, 0.0)
    while len(kept) < max_layers:
        fitting = [item for item in left if room.holds([*kept, item])]
        tried = sorted(fitting, key=left.__getitem__)[: _REMEASURED if kept else None]
        layers = tuple(item.layer for item in kept)
        left |= {item: noise((*layers, item.layer)) for item in tried}
        gained = {
            item: (reached - left[item]) / (1 / max_layers + room.share(item)) for item in tried if left[item] < reached
        }
        if not gained:
            return
        best = max(gained, key=gained.__getitem__)
        kept.append(best)
        reached = left.pop(best)
        yield Step((*layers, best.layer), reached)


def _needed(layers: Layers, missed: Callable[[Layers], str]) -> Layers:
    """Let layers go again, those found first, as long as no limit is missed without them."""
    for layer in layers[:-1]:
        fewer = tuple(other for other in layers if other != layer)
        if not missed(fewer):
            layers = fewer
    return layers


def _why_none(candidates: Sequence[Candidate], room: Room) -> str:
    if not any(room.holds([item]) for item in candidates):
        return "the limits on speed and size leave no room for any float layer"
    return "no layer that there is room for takes noise from the outputs"


def _listed(layers: Layers) -> str:
    return ", ".join(f'"{layer}"' for layer in layers)
