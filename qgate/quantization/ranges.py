"""What calibration finds, by itself: the scale and zero point of every observed activation."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qgate.quantization.observers import ActivationObserver, ByteObserver

if TYPE_CHECKING:
    import torch

    from qgate.quantization.observers import Bounds

__all__ = ["KnownObserver", "Ranges", "ranges_of", "take_ranges"]

Ranges = dict[str, tuple["torch.Tensor", "torch.Tensor"]]


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


def ranges_of(observed: torch.fx.GraphModule) -> Ranges:
    """Give scale and zero point of each calibrated observer. Raises `QuantizationError` where one saw no value."""
    return {name: observer.calculate_qparams() for name, observer in _observers(observed).items()}


def take_ranges(observed: torch.fx.GraphModule, ranges: Ranges) -> torch.fx.GraphModule:
    """Put what was found in the place of observers, as if they had found it, and give the graph back.

    Raises `KeyError` where one is missing, and then leaves the graph as it was.
    """
    known = {name: KnownObserver(ranges[name], observer) for name, observer in _observers(observed).items()}
    for name, observer in known.items():
        observed.set_submodule(name, observer)
    return observed


def _observers(observed: torch.fx.GraphModule) -> dict[str, ActivationObserver]:
    """Find the observers that the graph calls; others are left over."""
    called = {str(node.target) for node in observed.graph.nodes if node.op == "call_module"}
    modules = {name: observed.get_submodule(name) for name in sorted(called)}
    return {
        name: module
        for name, module in modules.items()
        if isinstance(module, ActivationObserver) and not isinstance(module, ByteObserver)
    }
