"""Observers: they watch values pass and choose the range that int8 will cover.

Plugins subclass `ActivationObserver` or `WeightObserver`. FX inserts them, so they are `torch.ao` observers.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from torch.ao.quantization.observer import UniformQuantizationObserverBase

from qgate.errors import QuantizationError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "REDUCED_ACTIVATION",
    "ActivationObserver",
    "ByteObserver",
    "HistogramObserver",
    "MinMaxObserver",
    "MovingAverageObserver",
    "Observer",
    "PerChannelMinMaxObserver",
    "PerTensorMinMaxObserver",
    "WeightObserver",
]

Bounds = tuple[torch.Tensor, torch.Tensor]

# Values counted of one tensor: enough for a histogram, and little beside the convolution that made it.
_SAMPLE = 1 << 14

# The reduced range. Without VNNI two products are added in 16 bits: (180 + 1) * 181 = 32,761 is the most that fits,
# the 1 for the rounding of two weights. It gives activations and weights alike seven bits and a half.
REDUCED_ACTIVATION = 181
_MOST = 2**15 - 1


class Observer(UniformQuantizationObserverBase):
    """What every observer has: a name, a role, `observe` and `bounds`.

    The keyword-only parameters of a subclass' constructor are its options in `qgate.toml`. A subclass passes the
    remaining keyword arguments on to `super().__init__`.
    """

    name: ClassVar[str]
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
    """An observer of weights: signed 8-bit values symmetric about zero, one scale a channel or one a tensor."""

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
        self._least_scale = torch.tensor(0.0)

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
            self._least_scale = (pairs if per_channel else pairs.max()) / self._greatest_pair
        return super().forward(x)

    def calculate_qparams(self, **_: object) -> tuple[torch.Tensor, torch.Tensor]:
        """Give scale and zero point for `bounds`, as above, and no smaller scale than the range allows."""
        scale, zero_point = super().calculate_qparams()
        return torch.maximum(scale, self._least_scale), zero_point


def _greatest_pair(channels: torch.Tensor) -> torch.Tensor:
    """Add the two greatest positive values of each row of (channels, values): shape (channels,)."""
    return channels.clamp_min(0).topk(min(2, channels.shape[1]), dim=1).values.sum(1)


class MinMaxObserver(ActivationObserver):
    """Covers everything it saw."""

    name: ClassVar[str] = "minmax"

    def __init__(self, **spec: int) -> None:
        super().__init__(**spec)
        self.low = torch.tensor(torch.inf)
        self.high = torch.tensor(-torch.inf)

    def observe(self, x: torch.Tensor) -> None:
        """Widen the range to `x`."""
        low, high = torch.aminmax(x)
        self.low, self.high = torch.minimum(self.low, low), torch.maximum(self.high, high)

    def bounds(self) -> Bounds:
        """Give the least and the greatest value seen."""
        return self.low, self.high


class MovingAverageObserver(ActivationObserver):
    """Covers an exponential moving average of each batch's least and greatest value."""

    name: ClassVar[str] = "moving_average"

    def __init__(self, *, averaging_constant: float = 0.01, **spec: int) -> None:
        super().__init__(**spec)
        self.averaging_constant = averaging_constant
        self.low: torch.Tensor | None = None
        self.high: torch.Tensor | None = None

    def observe(self, x: torch.Tensor) -> None:
        """Move the range towards that of `x` by `averaging_constant`."""
        low, high = torch.aminmax(x)
        self.low = low if self.low is None else torch.lerp(self.low, low, self.averaging_constant)
        self.high = high if self.high is None else torch.lerp(self.high, high, self.averaging_constant)

    def bounds(self) -> Bounds:
        """Give the averaged bounds."""
        nan = torch.tensor(torch.nan)
        return (nan if self.low is None else self.low), (nan if self.high is None else self.high)


class HistogramObserver(ActivationObserver):
    """Clips where the mean squared error of quantizing, reckoned on a histogram, is least.

    torch.ao's observer of this kind assumes 256 levels even where the range is reduced to 128, stops at the first
    local minimum, and searches in interpreted steps. Here the histogram grows by merging pairs of bins, which
    moves no mass, and each bound is searched over its whole length for the levels that there are. Of a large tensor
    an evenly spread sample is counted; its least and greatest value are exact.

    Where only an elementwise function reads the values, the error is reckoned behind it: of what goes into SiLU,
    negative values matter little.
    """

    name: ClassVar[str] = "histogram"

    def __init__(self, *, bins: int = 4096, **spec: int) -> None:
        super().__init__(**spec)
        self.bins = bins
        self.histogram = torch.empty(0)  # FX makes many observers that never see a value
        self.low = self.width = 0.0
        self.least, self.greatest = torch.inf, -torch.inf

    def observe(self, x: torch.Tensor) -> None:
        """Count the values of `x`."""
        low, high = (float(bound) for bound in torch.aminmax(x))
        if not (low > -torch.inf and high < torch.inf):
            self.least = torch.nan
            return
        self.least, self.greatest = min(self.least, low), max(self.greatest, high)
        self._cover(min(low, 0.0), max(high, 0.0))
        step = x.numel() // _SAMPLE | 1  # odd, so as not to follow one column of a power-of-two width
        sample = x.flatten()[::step]
        self.histogram += torch.histc(sample, self.bins, min=self.low, max=self.low + self.width * self.bins)

    def bounds(self) -> Bounds:
        """Search each bound in turn, the other held, until neither moves."""
        if not self.least <= self.greatest:
            return torch.tensor(torch.nan), torch.tensor(torch.nan)
        low, high = min(self.least, 0.0), max(self.greatest, 0.0)
        if low == high:
            return torch.tensor(low), torch.tensor(high)
        fractions = torch.linspace(1.0, 1.0 / 64, 64, dtype=torch.float64)
        for _ in range(2):
            high = self._best(torch.full_like(fractions, low), fractions * max(self.greatest, 0.0))[1]
            low = self._best(fractions * min(self.least, 0.0), torch.full_like(fractions, high))[0]
        return torch.tensor(low, dtype=torch.float32), torch.tensor(high, dtype=torch.float32)

    def _cover(self, low: float, high: float) -> None:
        if not self.histogram.numel():
            self.histogram = torch.zeros(self.bins, dtype=torch.float64)
            self.low, self.width = low, max((high - low) / self.bins, torch.finfo(torch.float32).tiny)
            return
        while low < self.low or high > self.low + self.width * self.bins:
            self._double(downwards=low < self.low)

    def _double(self, *, downwards: bool) -> None:
        merged = self.histogram.reshape(-1, 2).sum(1)
        room = torch.zeros_like(merged)
        self.histogram = torch.cat((room, merged) if downwards else (merged, room))
        if downwards:
            self.low -= self.width * self.bins
        self.width *= 2

    def _best(self, low: torch.Tensor, high: torch.Tensor) -> tuple[float, float]:
        """Give the pair of bounds (each shape (candidates,)) of the least squared error."""
        used = self.histogram.nonzero().squeeze(1)
        values = self.low + (used + 0.5) * self.width
        scale = ((high - low) / self.levels).clamp_min(torch.finfo(torch.float32).eps).unsqueeze(1)
        zero_point = torch.round(-low.unsqueeze(1) / scale)
        steps = torch.clamp(torch.round(values / scale) + zero_point, 0, self.levels)
        read = self.read_through or torch.nn.Identity()
        error = (read((steps - zero_point) * scale) - read(values)).square() @ self.histogram[used]
        best = int(error.argmin())
        return float(low[best]), float(high[best])


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
