"""Observers: they watch values pass and choose the range that int8 will cover.

Plugins subclass `ActivationObserver` or `WeightObserver`. FX inserts them, so they are `torch.ao` observers.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from torch.ao.quantization.observer import UniformQuantizationObserverBase

from qgate.errors import QuantizationError
from qgate.quantization.histogram import Histogram, Sampled

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "REDUCED_ACTIVATION",
    "ActivationObserver",
    "ByteObserver",
    "CountingObserver",
    "HistogramObserver",
    "MinMaxObserver",
    "MovingAverageObserver",
    "Observer",
    "PerChannelMinMaxObserver",
    "PerTensorMinMaxObserver",
    "StatisticObserver",
    "WeightObserver",
]

Bounds = tuple[torch.Tensor, torch.Tensor]

# The reduced range. Without VNNI two products are added in 16 bits: (180 + 1) * 181 = 32,761 is the most that fits,
# the 1 for the rounding of two weights. It gives activations and weights alike seven bits and a half.
REDUCED_ACTIVATION = 181
_MOST = 2**15 - 1


class Observer(UniformQuantizationObserverBase):
    """What every observer has: a name, a role, `observe` and `bounds`.

    The keyword-only parameters of a subclass' constructor are its options in `qgate.toml`. A subclass passes the
    remaining keyword arguments on to `super().__init__`. `alternatives` are options that `qgate tune` tries, too.
    """

    name: ClassVar[str]
    alternatives: ClassVar[tuple[dict[str, Any], ...]] = ()
    role: ClassVar[Literal["activation", "weight"]]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Observe `x` and hand it on unchanged."""
        if x.numel():
            self.observe(x.detach().to(torch.float32))
        return x

    def calculate_qparams(self, **_: object) -> tuple[torch.Tensor, torch.Tensor]:
        """Give scale and zero point for `bounds`. Raises `QuantizationError` where they are not finite."""
        low, high = self.bounds()
        if not (torch.isfinite(low).all() and torch.isfinite(high).all()):
            raise QuantizationError(
                f'observer "{self.name}" saw no value, or one that is not finite; check the model and its calibration'
            )
        scale, zero_point = self._calculate_qparams(low, high)
        return scale, zero_point

    @abstractmethod
    def observe(self, x: torch.Tensor) -> None:
        """Take in one float32 tensor that holds at least one value."""

    @abstractmethod
    def bounds(self) -> Bounds:
        """Give the least and the greatest value that int8 should cover: 0-d, or one value a channel."""


class ActivationObserver(Observer):
    """An observer of activations: unsigned 8-bit values, one scale and zero point a tensor.

    `read_through` is the elementwise function that reads the values, where nothing else does.
    """

    role: ClassVar[Literal["activation", "weight"]] = "activation"
    read_through: Callable[[torch.Tensor], torch.Tensor] | None = None

    def __init__(self, *, quant_min: int = 0, quant_max: int = 255) -> None:
        super().__init__(dtype=torch.quint8, qscheme=torch.per_tensor_affine, quant_min=quant_min, quant_max=quant_max)

    @property
    def levels(self) -> int:
        """Count the steps between the least and the greatest int8 value."""
        return int(self.quant_max) - int(self.quant_min)

    def narrow(self) -> None:
        """Leave room for a product with the reduced weights in 16 bits."""
        self.quant_max = self.quant_min + REDUCED_ACTIVATION


class StatisticObserver(ActivationObserver):
    """An observer that learns from a few numbers of each tensor: `observe` is `take` of `statistic`.

    A worker of an executor makes the statistics of its samples, and the driver takes them in the samples' order: the
    ranges are those of a local run to the last bit, though an observer's state depends on the order.
    """

    def observe(self, x: torch.Tensor) -> None:
        """Take in the statistic of `x`."""
        self.take(self.statistic(x))

    @abstractmethod
    def statistic(self, x: torch.Tensor) -> Any:
        """Give what is learnt from `x`, whatever was seen before: numbers, tensors, and tuples of these.

        No views of `x`, which the model may overwrite before the statistic is taken in.
        """

    @abstractmethod
    def take(self, statistic: Any) -> None:
        """Take in the statistic of one tensor."""


class ByteObserver(ActivationObserver):
    """Not an observer but the knowledge that the values are bytes already: `byte_scale` times 0 to 255."""

    def __init__(self, byte_scale: float) -> None:
        super().__init__()
        self.byte_scale = byte_scale

    def observe(self, x: torch.Tensor) -> None:
        """Learn nothing."""

    def bounds(self) -> Bounds:
        """Give the values of the least and the greatest byte."""
        return torch.tensor(0.0), torch.tensor(self.levels * self.byte_scale)

    def narrow(self) -> None:
        """Stay: it is the weights that must leave room."""


class WeightObserver(Observer):
    """An observer of weights: signed 8-bit values symmetric about zero, one scale a channel or one a tensor.

    `least_scale` is the smallest scale that a narrow range allows, 0 in a full one: 0-d, or one value a channel. It is
    known when `observe` is called.
    """

    role: ClassVar[Literal["activation", "weight"]] = "weight"

    def __init__(self, *, per_channel: bool = True, ch_axis: int = 0) -> None:
        super().__init__(
            dtype=torch.qint8,
            qscheme=torch.per_channel_symmetric if per_channel else torch.per_tensor_symmetric,
            quant_min=-128,
            quant_max=127,
        )
        self.ch_axis = ch_axis
        self._greatest_pair: float | None = None
        self.least_scale = torch.tensor(0.0)

    def narrow(self, activation: int = REDUCED_ACTIVATION) -> None:
        """Leave room for a sum of two products with activations, `activation` at most, in 16 bits.

        Which weights a kernel pairs is its own affair, so it is the two greatest of one sign in an output channel that
        must fit. Most channels have few great weights and lose little.
        """
        self._greatest_pair = _MOST // activation - 1  # the 1 for the rounding of two weights

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Observe `x` and hand it on unchanged."""
        if self._greatest_pair and x.numel():
            channels = x.detach().to(torch.float32).movedim(self.ch_axis, 0).flatten(1)
            pairs = torch.maximum(_greatest_pair(channels), _greatest_pair(-channels))
            per_channel = self.qscheme == torch.per_channel_symmetric
            self.least_scale = (pairs if per_channel else pairs.max()) / self._greatest_pair
        return super().forward(x)

    def calculate_qparams(self, **_: object) -> tuple[torch.Tensor, torch.Tensor]:
        """Give scale and zero point for `bounds`, as above, and no smaller scale than the range allows."""
        scale, zero_point = super().calculate_qparams()
        return torch.maximum(scale, self.least_scale), zero_point


def _greatest_pair(channels: torch.Tensor) -> torch.Tensor:
    """Add the two greatest positive values of each row of (channels, values): shape (channels,)."""
    return channels.clamp_min(0).topk(min(2, channels.shape[1]), dim=1).values.sum(1)


class MinMaxObserver(StatisticObserver):
    """Covers everything it saw."""

    name: ClassVar[str] = "minmax"

    def __init__(self, **spec: int) -> None:
        super().__init__(**spec)
        self.low = torch.tensor(torch.inf)
        self.high = torch.tensor(-torch.inf)

    def statistic(self, x: torch.Tensor) -> Bounds:
        """Give the least and the greatest value."""
        low, high = torch.aminmax(x)
        return low, high

    def take(self, statistic: Bounds) -> None:
        """Widen the range."""
        low, high = statistic
        self.low, self.high = torch.minimum(self.low, low), torch.maximum(self.high, high)

    def bounds(self) -> Bounds:
        """Give the least and the greatest value seen."""
        return self.low, self.high


class MovingAverageObserver(StatisticObserver):
    """Covers an exponential moving average of each batch's least and greatest value."""

    name: ClassVar[str] = "moving_average"

    def __init__(self, *, averaging_constant: float = 0.01, **spec: int) -> None:
        super().__init__(**spec)
        self.averaging_constant = averaging_constant
        self.low: torch.Tensor | None = None
        self.high: torch.Tensor | None = None

    def statistic(self, x: torch.Tensor) -> Bounds:
        """Give the least and the greatest value."""
        low, high = torch.aminmax(x)
        return low, high

    def take(self, statistic: Bounds) -> None:
        """Move the range towards that of a tensor by `averaging_constant`."""
        low, high = statistic
        self.low = low if self.low is None else torch.lerp(self.low, low, self.averaging_constant)
        self.high = high if self.high is None else torch.lerp(self.high, high, self.averaging_constant)

    def bounds(self) -> Bounds:
        """Give the averaged bounds."""
        nan = torch.tensor(torch.nan)
        return (nan if self.low is None else self.low), (nan if self.high is None else self.high)


class CountingObserver(StatisticObserver):
    """Counts what it sees in a histogram, in which a subclass searches the range to cover."""

    def __init__(self, *, bins: int = 4096, **spec: int) -> None:
        super().__init__(**spec)
        self.histogram = Histogram(bins)

    def statistic(self, x: torch.Tensor) -> Sampled:
        """Give a sample of the values: 64 KiB at most."""
        return self.histogram.sampled(x)

    def take(self, statistic: Sampled) -> None:
        """Count the values of a sample."""
        self.histogram.count(statistic)

    def bounds(self) -> Bounds:
        """Give what `search` finds; NaN where nothing can be searched."""
        least, greatest = self.histogram.least, self.histogram.greatest
        if not least <= greatest:
            return torch.tensor(torch.nan), torch.tensor(torch.nan)
        low, high = min(least, 0.0), max(greatest, 0.0)
        if low < high:
            low, high = self.search(low, high)
        return torch.tensor(low, dtype=torch.float32), torch.tensor(high, dtype=torch.float32)

    @abstractmethod
    def search(self, low: float, high: float) -> tuple[float, float]:
        """Choose bounds within `low` and `high`, which hold zero and all values seen."""

    def errors(self, low: torch.Tensor, high: torch.Tensor) -> torch.Tensor:
        """Sum the squared error of quantizing with each pair of bounds: all shape (candidates,), float64.

        Where only an elementwise function reads the values, the error is reckoned behind it: of what goes into SiLU,
        negative values matter little.
        """
        values, counts = self.histogram.used()
        scale = ((high - low) / self.levels).clamp_min(torch.finfo(torch.float32).eps).unsqueeze(1)
        zero_point = torch.round(-low.unsqueeze(1) / scale)
        steps = torch.clamp(torch.round(values / scale) + zero_point, 0, self.levels)
        read = self.read_through or torch.nn.Identity()
        return (read((steps - zero_point) * scale) - read(values)).square() @ counts


class HistogramObserver(CountingObserver):
    """Clips where the mean squared error of quantizing, reckoned on a histogram, is least.

    torch.ao's observer of this kind assumes 256 levels even where the range is reduced to 128, stops at the first
    local minimum, and searches in interpreted steps. Here each bound is searched over its whole length for the levels
    that there are.
    """

    name: ClassVar[str] = "histogram"

    def search(self, low: float, high: float) -> tuple[float, float]:
        """Search each bound in turn, the other held, until neither moves."""
        fractions = torch.linspace(1.0, 1.0 / 64, 64, dtype=torch.float64)
        lows, highs = fractions * low, fractions * high
        for _ in range(2):
            high = float(highs[self.errors(torch.full_like(lows, low), highs).argmin()])
            low = float(lows[self.errors(lows, torch.full_like(highs, high)).argmin()])
        return low, high


class PerTensorMinMaxObserver(WeightObserver):
    """Covers the whole weight with one scale."""

    name: ClassVar[str] = "per_tensor_minmax"

    def __init__(self, **spec: int) -> None:
        super().__init__(per_channel=False, **spec)
        self.low, self.high = torch.tensor(torch.nan), torch.tensor(torch.nan)

    def observe(self, x: torch.Tensor) -> None:
        """Take the range of `x`."""
        self.low, self.high = torch.aminmax(x)

    def bounds(self) -> Bounds:
        """Give the range of the weight seen last."""
        return self.low, self.high


class PerChannelMinMaxObserver(WeightObserver):
    """Covers each output channel of the weight with a scale of its own."""

    name: ClassVar[str] = "per_channel_minmax"

    def __init__(self, **spec: int) -> None:
        super().__init__(per_channel=True, **spec)
        self.low, self.high = torch.tensor(torch.nan), torch.tensor(torch.nan)

    def observe(self, x: torch.Tensor) -> None:
        """Take the range of each channel of `x`, along `ch_axis`."""
        channels = x.movedim(self.ch_axis, 0).flatten(1)
        self.low, self.high = torch.aminmax(channels, dim=1)

    def bounds(self) -> Bounds:
        """Give the ranges of the weight seen last, each shape (channels,)."""
        return self.low, self.high
