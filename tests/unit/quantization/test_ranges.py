"""A graph that is told what calibration found is the graph that was calibrated."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from small_networks import NETWORKS, Network

from qgate.quantization.backends import FbgemmBackend
from qgate.quantization.codec import encode
from qgate.quantization.fused import FusedBackend
from qgate.quantization.observers import HistogramObserver, PerChannelMinMaxObserver, PerTensorMinMaxObserver
from qgate.quantization.prepare import Recipe, convert, prepare
from qgate.quantization.ranges import ranges_of, take_ranges


def observed(network: Network, backend: Any, weight: type = PerChannelMinMaxObserver) -> torch.fx.GraphModule:
    recipe = Recipe(
        activation=HistogramObserver,
        weight=weight,
        reduce_range=True,
        non_traceable=network.non_traceable,
        float_outputs=getattr(backend, "float_outputs", False),
        float_summands=getattr(backend, "float_summands", False),
    )
    return prepare(network.module(), recipe, backend.backend_config(), network.inputs())


def encoded(graph: torch.fx.GraphModule, network: Network, backend: Any) -> tuple[Any, dict[str, torch.Tensor]]:
    return encode(convert(graph, backend.backend_config()), network.inputs())


@pytest.mark.parametrize("backend", [FbgemmBackend(), FusedBackend()], ids=["fbgemm", "fused"])
@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("weight", [PerChannelMinMaxObserver, PerTensorMinMaxObserver])
def test_ranges_take_the_place_of_calibration(name: str, backend: Any, weight: type) -> None:
    """They were found with the default observer of weights, and serve with any."""
    network = NETWORKS[name]
    calibrated, source, told = (observed(network, backend, kind) for kind in (weight, PerChannelMinMaxObserver, weight))
    with torch.no_grad():
        for seed in range(4):
            for graph in (calibrated, source):
                graph(*network.inputs(seed))

    take_ranges(told, ranges_of(source))

    expected, found = (encoded(graph, network, backend) for graph in (calibrated, told))
    assert found[0] == expected[0]
    assert found[1].keys() == expected[1].keys()
    assert all(torch.equal(found[1][key], expected[1][key]) for key in expected[1] if not key.endswith("script"))


def test_ranges_of_another_graph_are_refused() -> None:
    source = observed(NETWORKS["linear"], FbgemmBackend())
    source(*NETWORKS["linear"].inputs())

    with pytest.raises(KeyError):
        take_ranges(observed(NETWORKS["residual"], FbgemmBackend()), ranges_of(source))
