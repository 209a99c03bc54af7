"""Layers put back to float32: what a recipe that ignores them would give, without calibrating again."""

from __future__ import annotations

import functools

import pytest
import torch
from small_networks import BACKENDS, NETWORKS, flat, reference

from qgate.engine.artifact import artifact_bytes
from qgate.quantization.fused.backend import FusedBackend
from qgate.quantization.layers import float_graph, signal_to_noise
from qgate.quantization.mixed import added_bytes, fused_names, quantized_layers, with_float

MADE = {name: backend() for name, backend in {**BACKENDS, "fused": FusedBackend}.items()}
EACH_BACKEND = pytest.mark.parametrize("backend", MADE)


@functools.cache
def graph(name: str, backend: str, ignored_scope: tuple[str, ...] = ()) -> torch.fx.GraphModule:
    """Quantize a network, once. With the full range: without VNNI, what only float layers read has it back."""
    left_float = {name: getattr(MADE[backend], name, False) for name in ("float_outputs", "float_summands")}
    settings = {"reduce_range": False, **left_float, "ignored_scope": ignored_scope}
    return reference(NETWORKS[name], MADE[backend], **settings)


def mixed(name: str, backend: str, *layers: str) -> torch.fx.GraphModule:
    network, config = NETWORKS[name], MADE[backend].backend_config()
    floats = float_graph(network.module(), config, network.non_traceable)
    return with_float(graph(name, backend), floats, config, layers)


def run(module: torch.nn.Module, name: str) -> torch.Tensor:
    with torch.no_grad():
        return flat(module(*NETWORKS[name].inputs()))


def num_quantized(module: torch.fx.GraphModule) -> int:
    return sum(node.target == "dequantize" for node in module.graph.nodes)


@pytest.mark.parametrize("backend", ["fbgemm", "fused"])
@pytest.mark.parametrize("name", NETWORKS)
def test_it_is_what_ignoring_the_layer_gives(name: str, backend: str) -> None:
    kept = graph(name, backend)

    for layer in quantized_layers(kept):
        found, expected = mixed(name, backend, layer), graph(name, backend, fused_names(kept, layer))

        # Observers that read through an activation, or share a range, may choose another one for a float reader; and
        # an activation that is a function has no name by which to ignore it.
        assert signal_to_noise(run(expected, name), run(found, name)) > 35, layer
        is_function = (name, backend) == ("called_twice", "fused")
        assert num_quantized(expected) - num_quantized(found) == (is_function and layer == "again"), layer


@pytest.mark.parametrize("name", ["conv_bn_silu", "linear", "kept_whole", "called_twice", "viewed"])
def test_in_plain_networks_it_is_the_same_to_the_bit(name: str) -> None:
    for layer in quantized_layers(graph(name, "fbgemm")):
        expected = graph(name, "fbgemm", (layer,))

        assert torch.equal(run(mixed(name, "fbgemm", layer), name), run(expected, name)), layer


@EACH_BACKEND
def test_with_every_layer_float_it_is_float32(backend: str) -> None:
    found = mixed("conv_bn_silu", backend, "0.0", "1.0")

    assert torch.allclose(run(found, "conv_bn_silu"), run(NETWORKS["conv_bn_silu"].module(), "conv_bn_silu"), atol=1e-6)


@pytest.mark.parametrize("backend", ["fbgemm", "fused"])
@pytest.mark.parametrize("name", NETWORKS)
def test_without_a_layer_it_is_the_same_graph(name: str, backend: str) -> None:
    assert torch.equal(run(mixed(name, backend), name), run(graph(name, backend), name))


@EACH_BACKEND
def test_kernels_run_it(backend: str) -> None:
    network, config = NETWORKS["residual"], MADE[backend].backend_config()
    found = with_float(reference(network, MADE[backend]), float_graph(network.module(), config), config, ["block.0"])
    expected = run(found, "residual")

    lowered = MADE[backend].lower(found, network.inputs())

    assert signal_to_noise(expected, run(lowered, "residual")) > 30


def test_the_names_of_a_layer_are_those_of_its_kernel() -> None:
    fbgemm, fused = (graph("conv_bn_silu", backend) for backend in ("fbgemm", "fused"))

    assert fused_names(fbgemm, "0.0") == ("0.0",)  # fbgemm has no kernel for SiLU: it is float anyway
    assert fused_names(fused, "0.0") == ("0.0", "0.2")


def test_the_reference_graph_stays_as_it_was() -> None:
    before = run(graph("residual", "fbgemm"), "residual")

    mixed("residual", "fbgemm", "stem.0")

    assert torch.equal(run(graph("residual", "fbgemm"), "residual"), before)


def test_an_artifact_grows_by_what_is_said() -> None:
    kept, inputs = graph("linear", "fbgemm"), NETWORKS["linear"].inputs()

    grown = len(artifact_bytes(mixed("linear", "fbgemm", "0"), inputs, {})) - len(artifact_bytes(kept, inputs, {}))

    assert added_bytes(kept, "0") == 16 * 32 * 3
    assert abs(grown - added_bytes(kept, "0")) < 600  # scales and nodes that are no more
