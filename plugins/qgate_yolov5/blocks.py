# A call of an `nn.Module` is `Any` to mypy.
# mypy: disable-error-code="no-any-return"
# ruff: noqa: D102 - what a block's `forward` does is said by its class
"""The blocks of YOLOv5's networks, written from the published architecture.

Attribute names are the published ones: they are the names in a `state_dict` and in `ignored_scope`. A block is made
either by its constructor, from the arguments of a yaml file, or by `Block.from_parts`, from modules that
were read from a checkpoint. All blocks are FX-traceable; residual additions are a plain `+`.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from typing_extensions import Self

# As YOLOv5 sets them on every batch normalization, instead of torch's 1e-5 and 0.1.
_BN_EPS = 1e-3
_BN_MOMENTUM = 0.03


def _batch_norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=_BN_EPS, momentum=_BN_MOMENTUM)


class Block(nn.Module):
    """A module whose `forward` depends only on named sub-modules (`parts`) and a few plain values (`settings`)."""

    parts: ClassVar[tuple[str, ...]] = ()
    settings: ClassVar[dict[str, type]] = {}

    @classmethod
    def from_parts(cls, parts: Mapping[str, nn.Module], settings: Mapping[str, Any]) -> Self:
        """Put a block together from its sub-modules and settings, without its constructor."""
        block = cls.__new__(cls)
        nn.Module.__init__(block)
        for name in cls.parts:
            block.add_module(name, parts[name])
        for name in cls.settings:
            setattr(block, name, settings[name])
        return block


class Conv(Block):
    """Convolution without bias, batch normalization, activation. `act=False` leaves the activation out."""

    parts = ("conv", "bn", "act")

    def __init__(  # noqa: PLR0913, PLR0917 - the argument order of the yaml files
        self, c1: int, c2: int, k: int = 1, s: int = 1, p: int | None = None, g: int = 1, act: bool = True
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(c1, c2, k, s, k // 2 if p is None else p, groups=g, bias=False)
        self.bn = _batch_norm(c2)
        self.act: nn.Module = nn.SiLU(inplace=True) if act else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.bn(self.conv(x)))


class DWConv(Conv):
    """Depth-wise `Conv`: as many groups as the channel counts have in common."""

    def __init__(self, c1: int, c2: int, k: int = 1, s: int = 1, act: bool = True) -> None:
        super().__init__(c1, c2, k, s, g=math.gcd(c1, c2), act=act)


class Bottleneck(Block):
    """A 1x1 and a 3x3 `Conv`, around which the input is added where channel counts allow."""

    parts = ("cv1", "cv2")
    settings: ClassVar = {"add": bool}

    def __init__(self, c1: int, c2: int, shortcut: bool = True, g: int = 1, e: float = 0.5) -> None:
        super().__init__()
        hidden = int(c2 * e)
        self.cv1 = Conv(c1, hidden)
        self.cv2 = Conv(hidden, c2, 3, g=g)
        self.add = shortcut and c1 == c2

    def forward(self, x: Tensor) -> Tensor:
        y = self.cv2(self.cv1(x))
        return x + y if self.add else y


class BottleneckCSP(Block):
    """Cross-stage-partial bottlenecks: one branch through bottlenecks, one past them, normalized together."""

    parts = ("cv1", "cv2", "cv3", "cv4", "bn", "act", "m")

    def __init__(  # noqa: PLR0913, PLR0917 - the argument order of the yaml files
        self, c1: int, c2: int, n: int = 1, shortcut: bool = True, g: int = 1, e: float = 0.5
    ) -> None:
        super().__init__()
        hidden = int(c2 * e)
        self.cv1 = Conv(c1, hidden)
        self.cv2 = nn.Conv2d(c1, hidden, 1, bias=False)
        self.cv3 = nn.Conv2d(hidden, hidden, 1, bias=False)
        self.cv4 = Conv(2 * hidden, c2)
        self.bn = _batch_norm(2 * hidden)
        self.act: nn.Module = nn.SiLU(inplace=True)
        self.m = nn.Sequential(*(Bottleneck(hidden, hidden, shortcut, g, e=1.0) for _ in range(n)))

    def forward(self, x: Tensor) -> Tensor:
        branches = torch.cat((self.cv3(self.m(self.cv1(x))), self.cv2(x)), 1)
        return self.cv4(self.act(self.bn(branches)))


class C3(Block):
    """Cross-stage-partial bottlenecks with three convolutions."""

    parts = ("cv1", "cv2", "cv3", "m")

    def __init__(  # noqa: PLR0913, PLR0917 - the argument order of the yaml files
        self, c1: int, c2: int, n: int = 1, shortcut: bool = True, g: int = 1, e: float = 0.5
    ) -> None:
        super().__init__()
        hidden = int(c2 * e)
        self.cv1 = Conv(c1, hidden)
        self.cv2 = Conv(c1, hidden)
        self.cv3 = Conv(2 * hidden, c2)
        self.m: nn.Module = nn.Sequential(*(Bottleneck(hidden, hidden, shortcut, g, e=1.0) for _ in range(n)))

    def forward(self, x: Tensor) -> Tensor:
        return self.cv3(torch.cat((self.m(self.cv1(x)), self.cv2(x)), 1))


class C3TR(C3):
    """`C3` around a transformer."""

    def __init__(self, c1: int, c2: int, n: int = 1) -> None:
        super().__init__(c1, c2, n=0)
        self.m = TransformerBlock(c2 // 2, num_heads=4, num_layers=n)


class C3SPP(C3):
    """`C3` around a spatial pyramid pooling."""

    def __init__(self, c1: int, c2: int, k: Sequence[int] = (5, 9, 13)) -> None:
        super().__init__(c1, c2, n=0)
        self.m = SPP(c2 // 2, c2 // 2, k)


class C3Ghost(C3):
    """`C3` around ghost bottlenecks."""

    def __init__(self, c1: int, c2: int, n: int = 1) -> None:
        super().__init__(c1, c2, n=0)
        self.m = nn.Sequential(*(GhostBottleneck(c2 // 2, c2 // 2) for _ in range(n)))


class TransformerLayer(Block):
    """Self-attention and two linear layers, each with its input added; no normalization."""

    parts = ("q", "k", "v", "ma", "fc1", "fc2")

    def __init__(self, channels: int, num_heads: int) -> None:
        super().__init__()
        self.q = nn.Linear(channels, channels, bias=False)
        self.k = nn.Linear(channels, channels, bias=False)
        self.v = nn.Linear(channels, channels, bias=False)
        self.ma = nn.MultiheadAttention(embed_dim=channels, num_heads=num_heads)
        self.fc1 = nn.Linear(channels, channels, bias=False)
        self.fc2 = nn.Linear(channels, channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.ma(self.q(x), self.k(x), self.v(x))[0] + x
        return self.fc2(self.fc1(x)) + x


class TransformerBlock(Block):
    """Transformer layers over the pixels of a map, after a learnt position embedding (`linear`)."""

    parts = ("linear", "tr")

    def __init__(self, channels: int, num_heads: int, num_layers: int) -> None:
        super().__init__()
        self.linear = nn.Linear(channels, channels)
        self.tr = nn.Sequential(*(TransformerLayer(channels, num_heads) for _ in range(num_layers)))

    def forward(self, x: Tensor) -> Tensor:
        pixels = x.flatten(2).permute(2, 0, 1)
        return self.tr(pixels + self.linear(pixels)).permute(1, 2, 0).reshape(x.shape)


class SPP(Block):
    """Spatial pyramid pooling: the map beside its max-pooled forms."""

    parts = ("cv1", "cv2", "m")

    def __init__(self, c1: int, c2: int, k: Sequence[int] = (5, 9, 13)) -> None:
        super().__init__()
        self.cv1 = Conv(c1, c1 // 2)
        self.cv2 = Conv(c1 // 2 * (len(k) + 1), c2)
        self.m = nn.ModuleList(nn.MaxPool2d(size, stride=1, padding=size // 2) for size in k)

    def forward(self, x: Tensor) -> Tensor:
        x = self.cv1(x)
        return self.cv2(torch.cat([x, *(pool(x) for pool in self.m)], 1))


class SPPF(Block):
    """`SPP` with one pooling applied three times, which is the same and faster."""

    parts = ("cv1", "cv2", "m")

    def __init__(self, c1: int, c2: int, k: int = 5) -> None:
        super().__init__()
        self.cv1 = Conv(c1, c1 // 2)
        self.cv2 = Conv(c1 // 2 * 4, c2)
        self.m = nn.MaxPool2d(k, stride=1, padding=k // 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.cv1(x)
        once = self.m(x)
        twice = self.m(once)
        return self.cv2(torch.cat((x, once, twice, self.m(twice)), 1))


class Focus(Block):
    """Moves each 2x2 square of pixels into channels, then a `Conv`."""

    parts = ("conv",)

    def __init__(self, c1: int, c2: int, k: int = 1, s: int = 1) -> None:
        super().__init__()
        self.conv = Conv(4 * c1, c2, k, s)

    def forward(self, x: Tensor) -> Tensor:
        squares = (x[..., ::2, ::2], x[..., 1::2, ::2], x[..., ::2, 1::2], x[..., 1::2, 1::2])
        return self.conv(torch.cat(squares, 1))


class GhostConv(Block):
    """A `Conv` for half of the channels, and a cheap depth-wise one that makes the other half of them."""

    parts = ("cv1", "cv2")

    def __init__(  # noqa: PLR0913, PLR0917 - the argument order of the yaml files
        self, c1: int, c2: int, k: int = 1, s: int = 1, g: int = 1, act: bool = True
    ) -> None:
        super().__init__()
        half = c2 // 2
        self.cv1 = Conv(c1, half, k, s, g=g, act=act)
        self.cv2 = Conv(half, half, 5, g=half, act=act)

    def forward(self, x: Tensor) -> Tensor:
        y = self.cv1(x)
        return torch.cat((y, self.cv2(y)), 1)


class GhostBottleneck(Block):
    """Two ghost convolutions with the input added; with `s=2` both ways halve the map."""

    parts = ("conv", "shortcut")

    def __init__(self, c1: int, c2: int, k: int = 3, s: int = 1) -> None:
        super().__init__()
        half, halves_map = c2 // 2, s == 2  # noqa: PLR2004 - a stride of two
        self.conv = nn.Sequential(
            GhostConv(c1, half),
            DWConv(half, half, k, s, act=False) if halves_map else nn.Identity(),
            GhostConv(half, c2, act=False),
        )
        self.shortcut: nn.Module = nn.Identity()
        if halves_map:
            self.shortcut = nn.Sequential(DWConv(c1, c1, k, s, act=False), Conv(c1, c2, act=False))

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x) + self.shortcut(x)


class Concat(Block):
    """Concatenates maps along dimension `d`."""

    settings: ClassVar = {"d": int}

    def __init__(self, d: int = 1) -> None:
        super().__init__()
        self.d = d

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        return torch.cat(list(maps), self.d)


class Detect(Block):
    """The head: one 1x1 convolution a level, giving raw maps of anchors * (5 + classes) channels."""

    parts: ClassVar[tuple[str, ...]] = ("m",)
    nm = 0  # mask coefficients an anchor

    def __init__(self, outputs: int, channels: Sequence[int]) -> None:
        super().__init__()
        self.m = nn.ModuleList(nn.Conv2d(c1, outputs, 1) for c1 in channels)

    def forward(self, maps: Sequence[Tensor]) -> tuple[Tensor, ...]:
        return tuple(conv(x) for conv, x in zip(self.m, maps, strict=True))


class Proto(Block):
    """Prototypes of masks, on a grid of twice the map's rows and columns."""

    parts = ("cv1", "upsample", "cv2", "cv3")

    def __init__(self, c1: int, hidden: int, masks: int) -> None:
        super().__init__()
        self.cv1 = Conv(c1, hidden, 3)
        self.upsample = nn.Upsample(scale_factor=2, mode="nearest")
        self.cv2 = Conv(hidden, hidden, 3)
        self.cv3 = Conv(hidden, masks)

    def forward(self, x: Tensor) -> Tensor:
        return self.cv3(self.cv2(self.upsample(self.cv1(x))))


class Segment(Detect):
    """`Detect` with mask coefficients behind each anchor's classes, and prototypes of masks as a last output."""

    parts = ("m", "proto")
    settings: ClassVar = {"nm": int}

    def __init__(self, outputs: int, channels: Sequence[int], masks: int, hidden: int) -> None:
        super().__init__(outputs, channels)
        self.nm = masks
        self.proto = Proto(channels[0], hidden, masks)

    def forward(self, maps: Sequence[Tensor]) -> tuple[Tensor, ...]:
        return (*super().forward(maps), self.proto(maps[0]))
