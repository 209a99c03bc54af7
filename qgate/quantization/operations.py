"""What each node of a lowered graph is: an int8 kernel, a conversion, a float operator; and whose layer it belongs to."""

from __future__ import annotations

import fnmatch
import operator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import fx, nn
from torch.ao.nn import quantized as nnq

from qgate.quantization.onednn_log import onednn_log

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from torch.ao.quantization.backend_config import BackendConfig

    from qgate.quantization.layers import FloatGraph

__all__ = ["CALLS", "Kind", "Operation", "Recipe", "count_kernels", "layers_of", "operations"]

CALLS = ("call_module", "call_function", "call_method")
Inputs = tuple[torch.Tensor, ...]
Kind = Literal["kernel", "table", "conversion", "float", "fallback", "other"]
