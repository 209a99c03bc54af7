"""Networks of the plain kinds, with weights as an initialization leaves them: what they compute is of no interest."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Callable

IMAGE = (1, 3, 224, 224)
TOKENS = (1, 197, 192)


def conv_bn(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    """Make a convolution and its batch norm."""
    layer = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(outputs))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside an identity. Source: He et al., "Deep Residual Learning", 2015, figure 5."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.first, self.second = conv_bn(inputs, outputs, 3, stride), conv_bn(outputs, outputs, 3)
        self.shortcut = conv_bn(inputs, outputs, 1, stride) if stride > 1 or inputs != outputs else nn.Identity()
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, inputs, H, W) to (N, outputs, H / stride, W / stride)."""
        result: Tensor = self.relu(self.second(self.relu(self.first(x))) + self.shortcut(x))
        return result


def resnet18() -> nn.Module:
    """Make a ResNet-18. Source: He et al., table 1."""
    stages: list[nn.Module] = []
    inputs = 64
    for outputs, stride in ((64, 1), (128, 2), (256, 2), (512, 2)):
        stages += [BasicBlock(inputs, outputs, stride), BasicBlock(outputs, outputs, 1)]
        inputs = outputs
    stem = [*conv_bn(3, 64, 7, 2), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
    return nn.Sequential(*stem, *stages, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 1000))


class SqueezeExcite(nn.Module):
    """Scales channels by what a small network makes of their means. Source: Howard et al., section 5.3."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        squeezed = max(8, (channels // 4 + 4) // 8 * 8)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.squeeze, self.expand = nn.Conv2d(channels, squeezed, 1), nn.Conv2d(squeezed, channels, 1)
        self.relu, self.gate = nn.ReLU(), nn.Hardsigmoid()

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, channels, H, W) to the same shape."""
        result: Tensor = x * self.gate(self.expand(self.relu(self.squeeze(self.pool(x)))))
        return result


Row = tuple[int, int, int, bool, bool, int]  # kernel, channels between and out, squeeze, Hardswish or ReLU, stride


class InvertedResidual(nn.Module):
    """A depthwise convolution between two pointwise ones. Source: Howard et al., figure 4."""

    def __init__(self, inputs: int, row: Row) -> None:
        super().__init__()
        kernel, wide, outputs, squeezes, swish, stride = row
        activation: type[nn.Module] = nn.Hardswish if swish else nn.ReLU
        layers: list[nn.Module] = [*conv_bn(inputs, wide, 1), activation()] if wide != inputs else []
        layers += [*conv_bn(wide, wide, kernel, stride, groups=wide), activation()]
        layers += [SqueezeExcite(wide)] if squeezes else []
        self.layers = nn.Sequential(*layers, *conv_bn(wide, outputs, 1))
        self.is_residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, inputs, H, W) to (N, outputs, H / stride, W / stride)."""
        result: Tensor = self.layers(x)
        return x + result if self.is_residual else result


_MOBILENET: tuple[Row, ...] = (
    *((3, 16, 16, False, False, 1), (3, 64, 24, False, False, 2), (3, 72, 24, False, False, 1)),
    *((5, 72, 40, True, False, 2), (5, 120, 40, True, False, 1), (5, 120, 40, True, False, 1)),
    *((3, 240, 80, False, True, 2), (3, 200, 80, False, True, 1), (3, 184, 80, False, True, 1)),
    *((3, 184, 80, False, True, 1), (3, 480, 112, True, True, 1), (3, 672, 112, True, True, 1)),
    *((5, 672, 160, True, True, 2), (5, 960, 160, True, True, 1), (5, 960, 160, True, True, 1)),
)


def mobilenet_v3() -> nn.Module:
    """Make a MobileNetV3-Large. Source: Howard et al., "Searching for MobileNetV3", 2019, table 1."""
    blocks: list[nn.Module] = []
    inputs = 16
    for row in _MOBILENET:
        blocks.append(InvertedResidual(inputs, row))
        inputs = row[2]
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(960, 1280), nn.Hardswish(), nn.Linear(1280, 1000)]
    stem = [*conv_bn(3, 16, 3, 2), nn.Hardswish()]
    return nn.Sequential(*stem, *blocks, *conv_bn(160, 960, 1), nn.Hardswish(), *head)


def perceptron() -> nn.Module:
    """Make linear layers with ReLU."""
    layers: list[nn.Module] = []
    for inputs, outputs in ((784, 1024), (1024, 1024), (1024, 1024)):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(1024, 10))


class TransformerBlock(nn.Module):
    """Attention and a perceptron, each behind a norm and beside an identity.

    Source: Dosovitskiy et al., "An Image is Worth 16x16 Words", 2020, equations 2 and 3.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList([nn.LayerNorm(width), nn.LayerNorm(width)])
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))
        self.wide, self.narrow, self.gelu = nn.Linear(width, 4 * width), nn.Linear(4 * width, width), nn.GELU()
        self.heads, self.size = heads, width // heads

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, tokens, width) to the same shape."""
        y = self.norms[0](x)
        query, key, value = (self._split(layer(y)) for layer in (self.query, self.key, self.value))
        attended = nn.functional.scaled_dot_product_attention(query, key, value)
        x = x + self.out(attended.transpose(1, 2).flatten(2))
        result: Tensor = x + self.narrow(self.gelu(self.wide(self.norms[1](x))))
        return result

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(2, (self.heads, self.size)).transpose(1, 2)


def transformer() -> nn.Module:
    """Make four blocks of the width of a ViT-Ti over 197 tokens, and a linear layer."""
    return nn.Sequential(*(TransformerBlock(192, 3) for _ in range(4)), nn.LayerNorm(192), nn.Linear(192, 1000))


NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "ResNet-18": (resnet18, IMAGE),
    "MobileNetV3-Large": (mobilenet_v3, IMAGE),
    "perceptron, 64 samples": (perceptron, (64, 784)),
    "transformer": (transformer, TOKENS),
}


def build(name: str) -> tuple[nn.Module, tuple[int, ...]]:
    """Make one with the same weights each time, and batch norms that saw something; give the shape of its input."""
    make, shape = NETWORKS[name]
    torch.manual_seed(0)
    module = make()
    with torch.no_grad():
        for layer in module.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.momentum = None  # the mean over the batches
        for _ in range(2):
            module(torch.rand(4 if len(shape) > 3 else 2, *shape[1:]))  # noqa: PLR2004  # images
    return module.eval(), shape
