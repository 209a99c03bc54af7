"""The int8 weights of a reference graph's layers, for those who write them elsewhere."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.ao.nn.quantized.reference.modules.utils import ReferenceQuantizedModule

__all__ = ["Int8Weight", "int8_weight"]


@dataclass(frozen=True)
class Int8Weight:
    """Quantized values and what they mean: (values - zero_point) * scale.

    `scale` and `zero_point` are 0-d, or have one value for each index of dimension `axis`.
    """

    values: torch.Tensor
    scale: torch.Tensor
    zero_point: torch.Tensor
    axis: int | None


def int8_weight(layer: torch.nn.Module) -> Int8Weight | None:
    """Give the weight of a layer as it was quantized; None where the layer has none, or a float one."""
    if not isinstance(layer, ReferenceQuantizedModule) or not hasattr(layer, "get_quantized_weight"):
        return None
    quantized = layer.get_quantized_weight()
    if not quantized.is_quantized:
        return None
    if quantized.qscheme() == torch.per_tensor_affine:
        scale, zero_point = torch.tensor(quantized.q_scale()), torch.tensor(quantized.q_zero_point())
        return Int8Weight(quantized.int_repr(), scale, zero_point, None)
    scales, zero_points = quantized.q_per_channel_scales(), quantized.q_per_channel_zero_points()
    return Int8Weight(quantized.int_repr(), scales, zero_points, int(quantized.q_per_channel_axis()))
