"""Layers are the user's modules, the same in both arms."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from small_networks import BACKENDS, NETWORKS, Network, reference

from qgate.quantization.fused import FusedBackend
from qgate.quantization.grouping import float_layers, int8_layers
from qgate.quantization.layers import FloatGraph, float_graph

EVERY_BACKEND = {**BACKENDS, "fused": FusedBackend}
LAYERS = {
    "conv_bn_silu": ["input", "0.0", "1.0"],
    "residual": ["x", "stem.0", "block.0"],
    "concatenated": ["x", "left", "right", "cat", "head", "max_pool2d"],
    "functional": ["x", "conv2d"],
    "linear": ["input", "0", "2"],
    "kept_whole": ["input", "0", "1", "2"],
    "called_twice": ["x", "stem", "again", "head"],
    "viewed": ["x", "stem", "view", "head"],
}


def both(network: Network, backend: Any) -> tuple[FloatGraph, torch.fx.GraphModule]:
    floats = float_graph(network.module(), backend.backend_config(), network.non_traceable)
    return floats, backend.lower_graph(reference(network, backend))


def distinct(layers: dict[str, str], graph: torch.fx.GraphModule) -> list[str]:
    """List the layers in the order in which they run; the output belongs to none."""
    return list(dict.fromkeys(layers[node.name] for node in graph.graph.nodes if node.op not in {"output", "get_attr"}))


@pytest.mark.parametrize("backend", EVERY_BACKEND)
@pytest.mark.parametrize("name", LAYERS)
def test_both_arms_have_the_layers_that_the_user_wrote(name: str, backend: str) -> None:
    floats, lowered = both(NETWORKS[name], EVERY_BACKEND[backend]())

    assert distinct(float_layers(floats), floats.module) == LAYERS[name]
    # What moves no value may have no node of its own in int8.
    assert set(distinct(int8_layers(lowered, floats), lowered)) <= set(LAYERS[name])
    weighted = {"0.0", "1.0", "stem.0", "block.0", "left", "right", "head", "conv2d", "0", "2", "stem", "again"}
    assert weighted.intersection(LAYERS[name]) <= set(int8_layers(lowered, floats).values())


def test_activation_and_sum_belong_to_the_convolution_before_them() -> None:
    floats, _ = both(NETWORKS["residual"], BACKENDS["onednn"]())

    layers = float_layers(floats)

    assert (layers["stem_2"], layers["block_2"], layers["add"]) == ("stem.0", "block.0", "block.0")


def test_conversions_belong_to_the_layer_whose_value_they_convert() -> None:
    floats, lowered = both(NETWORKS["conv_bn_silu"], BACKENDS["onednn"]())

    layers = int8_layers(lowered, floats)

    first, *_ = [node.name for node in lowered.graph.nodes if node.target is torch.quantize_per_tensor]
    assert layers[first] == "input"
    nodes = [node for node in lowered.graph.nodes if node.target == "dequantize"]
    assert [layers[node.name] for node in nodes][:1] == ["0.0"]
