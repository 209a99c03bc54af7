"""What calibration finds, by itself: the scale and zero point of every observed activation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from qgate.quantization.called import called_modules
from qgate.quantization.observers import ActivationObserver, ByteObserver, StatisticObserver

if TYPE_CHECKING:
    from collections.abc import Iterable

    from qgate.quantization.observers import Bounds

__all__ = [
    "KnownObserver",
    "Ranges",
    "Statistics",
    "gather_statistics",
    "needing_values",
    "ranges_of",
    "take_ranges",
    "take_statistics",
]

Ranges = dict[str, tuple[torch.Tensor, torch.Tensor]]
# Of each tensor that observers saw, in that order: the observer's name, and what it learns from the tensor.
Statistics = list[tuple[str, Any]]


class KnownObserver(ActivationObserver):
    """Not an observer but the knowledge of what one has found."""

    def __init__(self, found: tuple[torch.Tensor, torch.Tensor], observer: ActivationObserver) -> None:
        super().__init__(quant_min=observer.quant_min, quant_max=observer.quant_max)
        self.found = found

    def observe(self, x: torch.Tensor) -> None:
        """Learn nothing."""

    def bounds(self) -> Bounds:
        """Give the values of the least and the greatest step."""
        scale, zero_point = self.found
        return -zero_point * scale, (self.levels - zero_point) * scale

    def calculate_qparams(self, **_: object) -> tuple[torch.Tensor, torch.Tensor]:
        """Give what was found."""
        return self.found


class _Gatherer(torch.nn.Module):
    """In the place of an observer: notes what that would learn."""

    def __init__(self, name: str, observer: ActivationObserver, seen: Statistics) -> None:
        super().__init__()
        self.name, self.seen = name, seen
        self.observer = observer

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Note the statistic of `x` and hand it on unchanged, as an observer does."""
        if x.numel() and isinstance(self.observer, StatisticObserver):
            self.seen.append((self.name, self.observer.statistic(x.detach().to(torch.float32))))
        return x


def needing_values(observed: torch.fx.GraphModule) -> list[str]:
    """Name the observers in a graph that must see values themselves, by their names in `qgate.toml`."""
    classes = {type(observer) for observer in _observers(observed).values()}
    return sorted(
        kind.name
        for kind in classes
        if not (issubclass(kind, StatisticObserver) and kind.observe is StatisticObserver.observe)
    )


def gather_statistics(observed: torch.fx.GraphModule) -> Statistics:
    """Let a graph gather statistics in place of observing; give the list into which it puts them."""
    seen: Statistics = []
    for name, observer in _observers(observed).items():
        observed.set_submodule(name, _Gatherer(name, observer, seen))
    return seen


def take_statistics(observed: torch.fx.GraphModule, statistics: Iterable[tuple[str, Any]]) -> None:
    """Let the observers of a graph take in what was gathered."""
    observers = _observers(observed)
    for name, statistic in statistics:
        observer = observers[name]
        if isinstance(observer, StatisticObserver):
            observer.take(statistic)


def ranges_of(observed: torch.fx.GraphModule) -> Ranges:
    """Give scale and zero point of each calibrated observer. Raises `QuantizationError` where one saw no value."""
    return {name: observer.calculate_qparams() for name, observer in _observers(observed).items()}


def take_ranges(observed: torch.fx.GraphModule, ranges: Ranges) -> torch.fx.GraphModule:
    """Put what was found in the place of observers, as if they had found it, and give the graph back.

    Raises `KeyError` where one is missing, and then leaves the graph as it was.
    """
    observers = _observers(observed)
    # One observer may have several names, as that of all inputs of a concatenation: it stays one.
    known = {id(observer): KnownObserver(ranges[name], observer) for name, observer in observers.items()}
    for name, observer in observers.items():
        observed.set_submodule(name, known[id(observer)])
    return observed


def _observers(observed: torch.fx.GraphModule) -> dict[str, ActivationObserver]:
    """Find the observers that the graph calls; others are left over."""
    return {
        name: module
        for name, module in sorted(called_modules(observed).items())
        if isinstance(module, ActivationObserver) and not isinstance(module, ByteObserver)
    }
