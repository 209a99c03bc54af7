"""Where the time goes, by a clock that ticks once a reading: every node takes a second."""

from __future__ import annotations

import itertools
import time
from typing import TYPE_CHECKING, Any

import pytest
import torch
from small_networks import BACKENDS, NETWORKS, Network, reference
from torch import nn

from qgate.quantization.fused import FusedBackend
from qgate.quantization.operations import Operation
from qgate.quantization.profile import Budget, LayerTime, NodeTime, Profile, Subject, profile

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def ticking(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let the time of one thread, by which nodes are measured, pass by a second whenever it is asked for."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    seconds = itertools.count()
    monkeypatch.setattr(time, "thread_time", lambda: float(next(seconds)))
    yield
    torch.set_num_threads(threads)


def measured(network: Network, backend: Any, budget: Budget | None = None, **recipe: Any) -> Profile:
    lowered = backend.lower_graph(reference(network, backend, **recipe))
    subject = Subject(
        module=network.module(),
        lowered=lowered,
        shipped=lowered,
        inputs=network.inputs(),
        config=backend.backend_config(),
        engine=backend.name,
        ignored_scope=recipe.get("ignored_scope", ()),
        non_traceable=network.non_traceable,
    )
    return profile(subject, budget or Budget(3), lambda: None)


def layers(profile: Profile) -> dict[str, tuple[float, float]]:
    return {layer.layer: (layer.float32, layer.int8) for layer in profile.layers}


@pytest.mark.usefixtures("ticking")
def test_a_layers_time_is_that_of_its_nodes() -> None:
    found = measured(NETWORKS["conv_bn_silu"], BACKENDS["onednn"]())

    # Float32: a convolution that its batch norm is folded into, and SiLU. Int8: the input is quantized; the first
    # convolution, its dequantize, SiLU, quantize; the second, its dequantize, SiLU.
    assert layers(found) == {"input": (0, 1), "0.0": (2, 4), "1.0": (2, 3)}
    assert (found.float32, found.int8, found.shipped) == (1, 1, 1)
    assert (found.seconds("kernel"), found.seconds("float"), found.seconds("conversion")) == (2, 2, 4)


@pytest.mark.usefixtures("ticking")
def test_a_table_within_a_fused_layer_is_told_apart() -> None:
    network = Network(lambda: nn.Sequential(nn.Conv2d(3, 4, 1), nn.Tanh(), nn.Conv2d(4, 4, 1)))

    found = measured(network, FusedBackend())

    first = found.layers[1]
    assert (first.layer, first.seconds("table")) == ("0", 1)
    assert [node.operation.kind for node in first.nodes] == ["kernel", "table"]


@pytest.mark.usefixtures("ticking")
def test_what_lies_between_nodes_is_the_rest_and_never_less_than_nothing() -> None:
    nodes = (NodeTime("a", Operation("Conv2d", "kernel"), 2.0), NodeTime("b", Operation("SiLU", "float"), 1.0))
    layer = LayerTime("first", 4.0, nodes)

    assert Profile((layer,), float32=5.0, int8=3.5, shipped=3.0, rounds=3).between == pytest.approx(0.5)
    assert Profile((layer,), float32=5.0, int8=2.5, shipped=3.0, rounds=3).between == 0.0


def test_the_worst_layers_add_most_to_what_is_missing_at_the_ratio() -> None:
    def layer(name: str, float32: float, int8: float) -> LayerTime:
        return LayerTime(name, float32, (NodeTime(name, Operation("Conv2d", "kernel"), int8),))

    found = Profile((layer("large", 8.0, 4.5), layer("small", 1.0, 1.2), layer("good", 4.0, 1.0)), 13, 6.7, 6.7, 3)

    assert [one.layer for one in found.worst(2.0)] == ["small", "large", "good"]
    # What all layers lack adds up to what the whole model lacks: 6.7 - 13 / 2.
    assert sum(one.excess(2.0) for one in found.layers) == pytest.approx(6.7 - 13 / 2)
    assert [one.layer for one in found.worst(4.0)] == ["large", "small", "good"]


def reasons(found: Profile) -> dict[str, str]:
    nodes = [node for layer in found.layers for node in layer.nodes]
    return {node.operation.what: node.reason for node in nodes if node.operation.kind == "float"}


def test_an_island_says_why_it_is_one() -> None:
    network = Network(lambda: nn.Sequential(nn.Conv2d(3, 4, 1), nn.SiLU(), nn.Sequential(nn.Conv2d(4, 4, 1))))

    found = measured(network, BACKENDS["onednn"](), ignored_scope=("2",))

    assert reasons(found) == {"SiLU": "no int8 kernel", "Conv2d": "in ignored_scope"}


def test_what_has_a_kernel_and_was_not_lowered_is_told_apart() -> None:
    network, backend = NETWORKS["linear"], BACKENDS["fbgemm"]()
    traced = torch.fx.symbolic_trace(network.module())

    found = profile(
        Subject(network.module(), traced, traced, network.inputs(), backend.backend_config(), "fbgemm"),
        Budget(3),
        lambda: None,
    )

    assert reasons(found)["Linear"] == "left float by the lowering"


def test_what_is_kept_whole_is_an_island_for_that() -> None:
    found = measured(NETWORKS["kept_whole"], BACKENDS["fbgemm"]())

    assert reasons(found) == {"Fork": "in non_traceable"}


def test_time_that_is_up_leaves_three_rounds() -> None:
    assert measured(NETWORKS["linear"], BACKENDS["fbgemm"](), Budget(100, max_seconds=0.0)).rounds == 3


def test_the_module_is_left_as_it_was() -> None:
    network = NETWORKS["residual"]
    module, backend = network.module(), BACKENDS["fbgemm"]()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    lowered = backend.lower_graph(reference(network, backend))

    profile(
        Subject(module, lowered, lowered, network.inputs(), backend.backend_config(), "fbgemm"), Budget(3), lambda: None
    )

    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert all(value.is_contiguous() for value in module.parameters())
