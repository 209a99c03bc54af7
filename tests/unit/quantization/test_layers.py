"""Errors of layers: each by itself, named as the user's modules are."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import pytest
import torch
from small_networks import BACKENDS, NETWORKS, Network, reference
from torch import nn

from qgate.quantization.backends import FbgemmBackend
from qgate.quantization.layers import LayerError, float_graph, kernel_errors, layer_errors, signal_to_noise


def errors_of(network: Network, graph: torch.fx.GraphModule) -> list[LayerError]:
    floats = float_graph(network.module(), FbgemmBackend().backend_config(), network.non_traceable)
    return layer_errors(floats, graph, network.inputs())


def first_bad(errors: list[LayerError]) -> str | None:
    return next((error.layer for error in errors if not error.finite or error.snr < 6), None)


def scales(graph: torch.fx.GraphModule) -> list[tuple[str, torch.Tensor]]:
    """List the scales of quantized values, each with the name of the node that computes the value."""
    quantized = [node for node in graph.graph.nodes if node.target is torch.quantize_per_tensor]
    return [(node.args[0].name, graph.get_buffer(node.args[1].target)) for node in quantized]


@pytest.mark.parametrize("name", NETWORKS)
def test_every_layer_of_a_sound_graph_is_good(name: str) -> None:
    network = NETWORKS[name]

    errors = errors_of(network, reference(network))

    assert errors
    assert min(error.snr for error in errors) > 15


def test_the_ratio_is_that_of_powers() -> None:
    signal, noise = np.array([3.0, -4.0, 12.0]), np.array([0.1, 0.2, -0.2])
    expected = 10 * np.log10((9 + 16 + 144) / (0.01 + 0.04 + 0.04))

    assert signal_to_noise(torch.tensor(signal), torch.tensor(signal + noise)) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("signal", "found", "expected"),
    [(1.0, 1.0, math.inf), (0.0, 0.0, math.inf), (0.0, 1.0, math.nan), (1.0, math.nan, -math.inf), (1.0, 0.0, 0.0)],
)
def test_the_ratio_at_its_ends(signal: float, found: float, expected: float) -> None:
    assert signal_to_noise(torch.tensor(signal), torch.tensor(found)) == pytest.approx(expected, nan_ok=True)


@pytest.mark.parametrize("factor", [1000.0, 0.001, math.nan])
@pytest.mark.parametrize("name", ["residual", "kept_whole", "linear"])
def test_a_wrong_scale_is_blamed_on_its_own_layer_alone(name: str, factor: float) -> None:
    network = NETWORKS[name]
    sound = reference(network)
    for index in range(len(scales(sound))):
        graph = copy.deepcopy(sound)
        node, scale = scales(graph)[index]
        if node not in {module.name for module in graph.graph.nodes if module.op == "call_module"}:
            continue
        scale *= factor

        errors = errors_of(network, graph)

        target = next(str(other.target) for other in graph.graph.nodes if other.name == node)
        assert {error.layer for error in errors if not error.finite or error.snr < 6} == {target}


def test_a_value_that_a_function_computes_is_named_with_its_module() -> None:
    class Outer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = NETWORKS["residual"].make()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.inner(x)

    network = Network(Outer)
    graph = reference(network)
    dict(scales(graph))["add"].mul_(1000)

    assert first_bad(errors_of(network, graph)) == "add in inner"


@pytest.mark.parametrize("layer", ["stem.0", "block.0"])
@pytest.mark.parametrize("fault", ["zeroed", "nan", "scaled"])
def test_wrong_weights_are_blamed_on_their_layer(layer: str, fault: str) -> None:
    network = NETWORKS["residual"]
    graph = reference(network)
    module: Any = graph.get_submodule(layer)
    if fault == "zeroed":
        module.weight.data.zero_()
    elif fault == "nan":
        module.bias.data[0] = math.nan
    else:
        module.weight_scale *= 1000

    errors = errors_of(network, graph)

    assert first_bad(errors) == layer
    assert {error.layer for error in errors if error.snr < 6} == {layer}


def test_the_figures_of_a_quantization_are_those_of_its_values() -> None:
    network = NETWORKS["conv_bn_silu"]
    graph = reference(network)
    dict(scales(graph))["_0_2"].div_(3)

    error = next(error for error in errors_of(network, graph) if error.layer == "0.2" and error.scale)

    with torch.no_grad():
        values = network.module()[0](*network.inputs()).double().numpy()
    steps = np.rint(values / error.scale) + error.zero_point
    assert error.span == pytest.approx((values.min(), values.max()), rel=1e-5)
    assert error.clipped == pytest.approx(((steps < 0) | (steps > 255)).mean(), abs=0.01)
    assert error.clipped > 0.02
    restored = (steps.clip(0, 255) - error.zero_point) * error.scale
    assert error.snr == pytest.approx(10 * np.log10((values**2).sum() / ((values - restored) ** 2).sum()), abs=0.1)


def test_what_an_activation_function_discards_is_no_error() -> None:
    """SiLU makes -30 and -9 alike: an observer that reads through it may clip the one to the other."""

    class Extreme(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.act = nn.Conv2d(1, 1, 1, bias=False), nn.SiLU(inplace=True)
            self.conv.weight.data.fill_(1.0)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.act(self.conv(x))

    network = Network(Extreme, (1, 1, 8, 8))
    graph = reference(network)
    conv_scale = dict(scales(graph))["conv"]
    conv_scale.fill_(1 / 16)
    next(buffer for name, buffer in graph.named_buffers() if name == "conv_zero_point_0").fill_(144)  # -9 to 6.9
    inputs = (torch.linspace(-40, 6, 64).reshape(1, 1, 8, 8),)
    dict(scales(graph))["x"].fill_(46 / 255)
    next(buffer for name, buffer in graph.named_buffers() if name == "conv_input_zero_point_0").fill_(222)

    floats = float_graph(network.module(), FbgemmBackend().backend_config())
    error = next(error for error in layer_errors(floats, graph, inputs) if error.layer == "conv" and error.scale)

    assert error.clipped is not None
    assert error.clipped > 0.5
    assert error.snr > 20
    assert error.span == pytest.approx((-40, 6), abs=0.2)


def test_neither_model_nor_inputs_are_changed() -> None:
    network = NETWORKS["conv_bn_silu"]
    module, inputs = network.module(), network.inputs()
    before = {key: value.clone() for key, value in module.state_dict().items()}

    layer_errors(float_graph(module, FbgemmBackend().backend_config()), reference(network), inputs)

    assert torch.equal(inputs[0], network.inputs()[0])
    assert type(module[0][1]) is nn.BatchNorm2d
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())


@pytest.mark.parametrize("backend", BACKENDS.values(), ids=BACKENDS)
def test_kernels_that_are_wrong_are_named_with_their_layer(backend: Any) -> None:
    network = NETWORKS["residual"]
    made = backend()
    floats = float_graph(network.module(), made.backend_config())
    lowered = made.lower_graph(reference(network, made))
    assert first_bad(kernel_errors(floats, reference(network, made), lowered, network.inputs())) is None

    lowered.get_submodule("block.0").scale *= 1000

    assert first_bad(kernel_errors(floats, reference(network, made), lowered, network.inputs())) == "block.0"
