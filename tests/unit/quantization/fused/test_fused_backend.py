from __future__ import annotations

import pytest
import torch
from fused_networks import SHAPE, conv, flat, fused, kinds
from small_networks import NETWORKS, Network, reference
from torch import nn

from qgate.plugins import load_registry
from qgate.quantization.backends import OnednnBackend
from qgate.quantization.fused import FusedBackend


def test_it_is_there_by_name() -> None:
    backend = load_registry().backends.get("fused")()

    assert isinstance(backend, FusedBackend)
    assert backend.is_available() is None


def test_it_is_available_only_where_onednn_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(OnednnBackend, "is_available", lambda _: "no oneDNN here")

    assert FusedBackend().is_available() == "no oneDNN here"


@pytest.mark.parametrize("name", NETWORKS)
def test_int8_outputs_are_near_float_outputs(name: str) -> None:
    network, backend = NETWORKS[name], FusedBackend()

    int8 = backend.lower(reference(network, backend, float_outputs=True, float_summands=True), network.inputs())

    with torch.no_grad():
        expected = flat(network.module()(*network.inputs(3)))
        error = flat(int8(*network.inputs(3))) - expected
    # 8 bits leave about 1/256 of the range a layer; these networks have at most four.
    assert 0 < error.square().mean().sqrt() < 0.05 * expected.std()


def greatest_products(groups: int, kernel: int) -> bool:
    """Say whether a convolution gives the exact sum of the greatest products of bytes that there are."""
    products = 32 // groups * kernel**2
    weight = torch.full((32, 32 // groups, kernel, kernel), 127, dtype=torch.int8)
    image = torch.full((1, 32, 8, 8), 255, dtype=torch.uint8).contiguous(memory_format=torch.channels_last)
    steps, zeros = torch.ones(32), torch.zeros(32, dtype=torch.int32)
    window = ([1, 1], [0, 0], [1, 1], groups)
    packed = torch.ops.onednn.qconv_prepack(weight, steps, 1.0, 0, *window, list(image.shape))
    result = torch.ops.onednn.qconv2d_pointwise(
        *(image, 1.0, 0, packed, steps, zeros, None, *window, 1.0, 0, torch.float32, "none", [], "")
    )
    return bool((result == products * 255 * 127).all())


def test_it_needs_a_reduced_range_exactly_where_its_kernels_saturate() -> None:
    exact = all(greatest_products(groups, kernel) for groups, kernel in ((1, 1), (1, 3), (32, 3)))

    assert FusedBackend().needs_reduced_range() is not exact


def test_the_reduced_range_is_never_saturated() -> None:
    # Weights and inputs at their ends, all of one sign: the greatest sums that the range allows.
    def make() -> nn.Module:
        layers = nn.Sequential(conv(16, 16), nn.Sigmoid(), conv(16, 8), nn.Hardsigmoid(), conv(8, 4))
        for layer in (layers[0], layers[2], layers[4]):
            nn.init.constant_(layer.weight, 0.05)
        return layers

    network = Network(make, (1, 16, 12, 12))
    graph, lowered = fused(network)
    image = torch.full((1, 16, 12, 12), 50.0)

    with torch.no_grad():
        given, expected = lowered(image), graph(image)
    assert float((given - expected).abs().max()) < 0.02 * float(expected.max())  # tables may be a step off


def test_nodes_are_named_as_in_the_reference_graph() -> None:
    network = Network(lambda: nn.Sequential(conv(3, 8), nn.ReLU(), conv(8, 8), nn.SiLU(), conv(8, 4, 1)), SHAPE)
    graph, lowered = fused(network)

    named = {node.meta["value"]: node.name for node in lowered.graph.nodes if "value" in node.meta}
    quantized = {node.args[0].name for node in graph.graph.nodes if node.target is torch.quantize_per_tensor}
    assert set(named) == quantized
    assert all(name == value for value, name in named.items() if not value.startswith("input"))
    assert kinds(lowered)[0] == "QuantizeInput"
