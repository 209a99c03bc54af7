"""The rules of observers."""

from __future__ import annotations

import copy
from collections import deque
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pytest
import torch

from qgate.errors import QGateError
from qgate.testing.conformance import Conformance, expect, expect_one_line, rule

if TYPE_CHECKING:
    from collections.abc import Mapping

    from qgate.quantization.observers import Observer

__all__ = ["ObserverConformance"]

_BATCHES, _VALUES = 8, 1536  # few enough values that an observer that takes a part of large tensors takes all
_CONTAINERS = (list, tuple, set, frozenset, deque)
_LONG = 32  # times as many batches, each of the same values moved and stretched a little


class ObserverConformance(Conformance):
    """An observer gives a range that int8 can have, of whatever it sees, in bounded memory.

    A subclass sets `observer` and, where it needs some, `options`. `streaming_tolerance` says how far bounds may move
    when the same values come in other batches or another order, as a share of the range: 0 is exact, None is for
    an observer that weighs batches by their order, such as a moving average. Weights come once and whole: of them the
    one seen last counts.
    """

    kind = "observer"
    observer: type[Observer]
    options: Mapping[str, Any] = {}
    streaming_tolerance: ClassVar[float | None] = 0.0

    @rule
    def test_it_says_what_it_is(self) -> None:
        """The class has a name and a role, and takes each of its alternatives."""
        self.expect_name()
        role = getattr(self.observer, "role", None)
        expected = 'role "activation" or "weight": a subclass of qgate.ActivationObserver or qgate.WeightObserver'
        expect(role in ("activation", "weight"), expected, role)
        for options in self.observer.alternatives:
            self.observer(**{**self.options, **options})

    @rule
    def test_values_pass_unchanged(self) -> None:
        """Values pass an observer unchanged."""
        values = _values()
        passed = self._observer()(given := values.clone())
        expect(torch.equal(passed, values), "what it was given", passed)
        expect(torch.equal(given, values), "values that stay as they are in memory", given)

    @rule
    def test_a_scale(self) -> None:
        """The scale is finite and greater than 0, and the zero point is an int8 value of the range."""
        for name, values in _usual().items():
            for narrow in (False, True):
                self._expect_range(values, f"{name}{', in the narrow range' * narrow}", narrow=narrow)

    @rule
    def test_values_without_spread(self) -> None:
        """Values without spread have a range all the same."""
        for name, value in {"zeros": 0.0, "a positive constant": 2.5, "a negative constant": -0.01}.items():
            self._expect_range(torch.full((4, 3, 2, 2), value), name)
        self._expect_range(_values()[:1, :1, :1, :1], "a single value")

    @rule
    def test_one_scale_a_channel(self) -> None:
        """There is one scale for all values, or for weights one for each output channel."""
        for axis in (0, 1) if self.observer.role == "weight" else (0,):
            observer = self._observer(axis)
            observer(_values())
            scale, zero_point = observer.calculate_qparams()
            per_channel = observer.qscheme in (torch.per_channel_symmetric, torch.per_channel_affine)
            count = _values().shape[axis] if per_channel else 1
            expect(scale.numel() == zero_point.numel() == count, f"{count} of each", (scale.shape, zero_point.shape))

    @rule
    def test_the_range_covers_most(self) -> None:
        """The range covers half of the usual values or more."""
        values = _values()
        observer = self._seen(values)
        low, high = (bound.reshape(-1, *[1] * (values.ndim - 1)) for bound in observer.bounds())
        share = ((values >= low) & (values <= high)).float().mean().item()
        expect(share >= 0.5, "at least half of normally distributed values within the bounds", f"{share:.1%}")

    @rule
    def test_values_that_are_not_finite(self) -> None:
        """Values that are not finite are an error of one line, or leave a finite range."""
        for bad in (torch.nan, torch.inf, -torch.inf):
            values = _values()
            values[0, 0, 0, 0] = bad
            observer = self._seen(values)
            try:
                scale, _ = observer.calculate_qparams()
            except QGateError:
                continue
            expect((torch.isfinite(scale) & (scale > 0)).all(), f"a QGateError or a finite scale with {bad}", scale)

    @rule
    def test_without_values(self) -> None:
        """Without a value there is no range, and an error of one line says so."""
        expect_one_line(self._observer().calculate_qparams, "before it has seen a value")
        empty = self._observer()
        empty(torch.empty(0, 3, 2, 2))
        expect_one_line(empty.calculate_qparams, "after a tensor that holds nothing")

    @rule
    def test_streaming_equals_batch(self) -> None:
        """Values in several batches give the range that they give in one."""
        batches = self._stream()
        whole = self._seen(torch.cat(batches))
        for size in (1, 3):
            parts = [torch.cat(batches[start : start + size]) for start in range(0, _BATCHES, size)]
            self._expect_same(self._seen(*parts), whole, f"as in one batch, in {len(parts)} batches")

    @rule
    def test_order_is_nothing(self) -> None:
        """Batches in another order give the same range."""
        batches = self._stream()
        self._expect_same(self._seen(*batches[::-1]), self._seen(*batches), "as forwards, backwards")

    @rule
    def test_the_last_weight_counts(self) -> None:
        """Of weights the one seen last counts."""
        if self.observer.role != "weight":
            pytest.skip("a rule of weights")
        former, last = 3 * _values(1), _values(2)
        self._expect_same(self._seen(former, last), self._seen(last), "as of the last weight alone", tolerance=0.0)

    @rule
    def test_memory_is_bounded(self) -> None:
        """An observer holds no more after many batches than after few."""
        observer = self._observer()
        sizes = []
        for index in range(2 * _LONG):
            observer(_values(index % _BATCHES) * (1 + index % 7 / 7))
            sizes.append(_numbers(vars(observer), set()))
        expect(sizes[-1] <= sizes[_LONG - 1], f"{sizes[_LONG - 1]} numbers, as after {_LONG} batches,", sizes[-1])

    @rule
    def test_a_copy_is_whole(self) -> None:
        """A copy has seen what the original saw, and goes on by itself."""
        observer = self._seen(_values(0))
        twin = copy.deepcopy(observer)
        self._expect_same(twin, observer, "as the original", tolerance=0.0)
        before = [bound.clone() for bound in observer.bounds()]
        twin(100 * _values(1))
        same = all(map(torch.equal, observer.bounds(), before))
        expect(same, f"bounds {before} of the original after its copy saw more", observer.bounds())

    def _observer(self, axis: int = 0, *, narrow: bool = False) -> Any:
        made: Any = self.observer(**self.options)
        if axis:
            made.ch_axis = axis
        if narrow:
            made.narrow()
        return made

    def _seen(self, *batches: torch.Tensor) -> Any:
        observer = self._observer()
        for batch in batches:
            observer(batch.clone())
        return observer

    def _stream(self) -> list[torch.Tensor]:
        """Give batches of different ranges. Skips where the observer does not claim to add batches up."""
        if self.observer.role == "weight":
            pytest.skip("weights come once and whole")
        if self.streaming_tolerance is None:
            pytest.skip("the observer weighs batches by their order")
        return [(1 + index / 4) * _values(index) for index in range(_BATCHES)]

    def _expect_range(self, values: torch.Tensor, name: str, *, narrow: bool = False) -> None:
        observer = self._observer(narrow=narrow)
        observer(values)
        scale, zero_point = observer.calculate_qparams()
        expect((torch.isfinite(scale) & (scale > 0)).all(), f"a finite scale above 0 of {name}", scale)
        inside = (zero_point >= observer.quant_min) & (zero_point <= observer.quant_max)
        expected = f"a zero point from {observer.quant_min} to {observer.quant_max} of {name}"
        expect(inside.all() and not zero_point.is_floating_point(), expected, zero_point)

    def _expect_same(self, given: Any, wanted: Any, situation: str, tolerance: float | None = None) -> None:
        (low, high), bounds = wanted.bounds(), given.bounds()
        share = self.streaming_tolerance if tolerance is None else tolerance
        most = (share or 0.0) * (high - low).abs().max()
        same = all((one - other).abs().max() <= most for one, other in zip(bounds, (low, high), strict=True))
        expect(same, f"bounds {low}, {high}, {situation}, to {most:.3g}", f"{bounds[0]}, {bounds[1]}")


def _values(seed: int = 0) -> torch.Tensor:
    """Draw normally distributed values with their middle beside zero: shape (8, 3, 8, 8)."""
    shape = (8, 3, 8, 8)
    assert torch.Size(shape).numel() == _VALUES  # noqa: S101  # what streaming rests on
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) + 0.25


def _usual() -> dict[str, torch.Tensor]:
    values = _values()
    return {
        "normal values": values,
        "positive values": values.abs() + 1,
        "negative values": -values.abs() - 1,
        "tiny values": 1e-15 * values,
        "huge values": 1e15 * values,
        "one value of many zeros": torch.where(values == values.max(), values, 0.0),
    }


def _numbers(value: Any, seen: set[int]) -> int:
    """Count the numbers that an object holds, in tensors, containers and attributes."""
    if id(value) in seen:
        return 0
    seen.add(id(value))
    if isinstance(value, torch.Tensor | np.ndarray):
        return int(np.prod(value.shape))
    if isinstance(value, int | float | str | bytes):
        return len(value) if isinstance(value, str | bytes) else 1
    if isinstance(value, type) or hasattr(value, "__get__"):
        return 0  # classes and functions
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, _CONTAINERS) else ()
    return sum(_numbers(part, seen) for part in (*parts, *getattr(value, "__dict__", {}).values()))
