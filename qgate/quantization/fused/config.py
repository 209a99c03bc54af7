"""Where the fused backend wants observers: one quantization behind an activation, none between it and its layer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.ao.quantization.backend_config import (
    BackendPatternConfig,
    DTypeConfig,
    ObservationType,
)
from torch.nn import functional

from qgate.quantization.backends import onednn_config

if TYPE_CHECKING:
    from torch.ao.quantization.backend_config import BackendConfig

__all__ = ["ACTIVATION_FUNCTIONS", "ACTIVATION_METHODS", "ACTIVATION_MODULES", "backend_config"]

_WEIGHTED = DTypeConfig(
    input_dtype=torch.quint8, output_dtype=torch.quint8, weight_dtype=torch.qint8, bias_dtype=torch.float
)
_UNWEIGHTED = DTypeConfig(input_dtype=torch.quint8, output_dtype=torch.quint8)

# What changes values one by one: behind a layer its kernel does it, elsewhere a byte table.
ACTIVATION_MODULES: tuple[Any, ...] = (
    *(nn.ReLU, nn.SiLU, nn.Hardswish, nn.LeakyReLU, nn.GELU, nn.Mish, nn.ELU, nn.Sigmoid, nn.Hardsigmoid, nn.Tanh),
    *(nn.ReLU6, nn.Hardtanh, nn.Softplus, nn.SELU, nn.CELU),
)
ACTIVATION_FUNCTIONS: tuple[Any, ...] = (
    *(functional.relu, torch.relu, functional.silu, functional.hardswish, functional.leaky_relu, functional.gelu),
    *(functional.mish, functional.elu, torch.sigmoid, functional.hardsigmoid, torch.tanh, functional.relu6),
    *(functional.hardtanh, functional.softplus, functional.selu, functional.celu),
)
ACTIVATION_METHODS = ("relu", "relu_", "sigmoid", "sigmoid_", "tanh", "tanh_")
_ACTIVATIONS = (*ACTIVATION_MODULES, *ACTIVATION_FUNCTIONS, *ACTIVATION_METHODS)
_FUSED_BY_TORCH = {nn.ReLU, functional.relu}  # with a layer
_WELL_KNOWN_TO_TORCH: set[Any] = {  # alone, with whatever range they have
    *(nn.ReLU, nn.Hardswish, nn.LeakyReLU, nn.ELU, nn.ReLU6, nn.Hardtanh, functional.relu, functional.hardswish),
    *(functional.leaky_relu, functional.elu, functional.relu6, functional.hardtanh, torch.relu, "relu", "relu_"),
}


def backend_config() -> BackendConfig:
    """Give torch's configuration for oneDNN, and the patterns that only the fused kernels have."""
    config = onednn_config()
    return config.set_name("fused").set_backend_pattern_configs([*_activated(), *_alone(), *_moved()])


def _activated() -> list[BackendPatternConfig]:
    """Give convolutions and linear layers with an activation behind them."""
    return [
        _pattern((layer, activation), ObservationType.OUTPUT_USE_DIFFERENT_OBSERVER_AS_INPUT, _WEIGHTED)
        for layer in (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
        for activation in _ACTIVATIONS
        if activation not in _FUSED_BY_TORCH
    ]


def _alone() -> list[BackendPatternConfig]:
    """Give activations that torch's configuration lacks, or for which its kernels have but one range."""
    return [
        _pattern(activation, ObservationType.OUTPUT_USE_DIFFERENT_OBSERVER_AS_INPUT, _UNWEIGHTED)
        for activation in _ACTIVATIONS
        if activation not in _WELL_KNOWN_TO_TORCH
    ]


def _moved() -> list[BackendPatternConfig]:
    """Give operators that only move values: input and output have one scale."""
    return [_pattern(nn.Upsample, ObservationType.OUTPUT_SHARE_OBSERVER_WITH_INPUT, _UNWEIGHTED)]


def _pattern(pattern: Any, observation: ObservationType, dtypes: DTypeConfig) -> BackendPatternConfig:
    return BackendPatternConfig(pattern).set_observation_type(observation).set_dtype_configs([dtypes])
