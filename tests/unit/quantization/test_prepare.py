from __future__ import annotations

import inspect
import re

import pytest
import torch
from small_networks import BACKENDS, NETWORKS, Fork, Network, conv_bn_silu, flat, reference
from torch import nn

from qgate.errors import QGateError, QuantizationError, TraceError
from qgate.quantization.observers import (
    HistogramObserver,
    MinMaxObserver,
    PerChannelMinMaxObserver,
    PerTensorMinMaxObserver,
)
from qgate.quantization.prepare import Recipe, convert, prepare


def float_convolutions(graph: torch.fx.GraphModule) -> set[str]:
    """Name the convolutions whose inputs are not dequantized values."""
    return {
        str(node.target)
        for node in graph.graph.nodes
        if node.op == "call_module"
        and isinstance(graph.get_submodule(str(node.target)), nn.Conv2d)
        and node.args[0].target != "dequantize"
    }


def greatest_steps(network: Network, **recipe: object) -> list[int]:
    """Give the greatest int8 value that each quantization in the graph has on calibration data."""
    seen: dict[str, int] = {}

    class Watch(torch.fx.Interpreter):
        def run_node(self, n: torch.fx.Node) -> object:
            value = super().run_node(n)
            if n.target is torch.quantize_per_tensor:
                seen[n.name] = max(seen.get(n.name, 0), int(value.int_repr().max()))
            return value

    graph = reference(network, **recipe)
    with torch.no_grad():
        for seed in range(1, 9):
            Watch(graph).run(*network.inputs(seed))
    return list(seen.values())


class Brief(nn.Module):
    def forward(s, x: torch.Tensor) -> torch.Tensor:  # noqa: N805  # some write it so
        return x - 1 if bool(x.sum() > 0) else x  # here


def raising(s: nn.Module, x: torch.Tensor) -> torch.Tensor:
    raise RuntimeError("boom in forward")  # here


class Raising(nn.Module):
    forward = raising  # a function that is no method by its name


class TestTraceErrors:
    def test_module_line_and_way_out(self) -> None:
        network = Network(lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.Sequential(Fork())))
        source, first = inspect.getsourcelines(Fork)
        branch = first + next(number for number, line in enumerate(source) if "if " in line)

        with pytest.raises(TraceError) as caught:
            reference(network)

        assert (str(caught.value.path), caught.value.line) == (inspect.getsourcefile(Fork), branch)
        assert re.search(r'module "1\.0".*add "1\.0" to `non_traceable`', caught.value.message)
        assert "\n" not in str(caught.value)

    def test_the_way_out_works(self) -> None:
        network = Network(lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.Sequential(Fork())), non_traceable=("1.0",))

        output = reference(network)(*network.inputs())

        assert torch.allclose(output, network.module()(*network.inputs()), atol=0.05 * float(output.abs().max()))

    def test_the_model_itself(self) -> None:
        with pytest.raises(TraceError, match=r"cannot trace the model itself.*move that line into a submodule"):
            reference(Network(Fork))

    @pytest.mark.parametrize(("module", "name"), [(Brief, "Fork"), (Raising, "boom")])
    def test_line_and_type_of_what_forward_raises(self, module: type[nn.Module], name: str) -> None:
        source, first = inspect.getsourcelines(module.forward)
        at = first + next(number for number, line in enumerate(source) if "# here" in line)

        with pytest.raises(QGateError) as caught:
            reference(Network(module))

        assert (str(caught.value.path), caught.value.line) == (__file__, at)
        assert {"Fork": "TraceError: ", "boom": "RuntimeError: boom"}[name] in caught.value.message


class TestIgnoredScope:
    def test_what_a_pattern_matches_stays_float(self) -> None:
        network = NETWORKS["residual"]

        assert float_convolutions(reference(network)) == set()
        assert float_convolutions(reference(network, ignored_scope=("block*",))) == {"block.0"}
        assert float_convolutions(reference(network, ignored_scope=("stem", "*.0"))) == {"stem.0", "block.0"}

    def test_everything_ignored_is_the_float_model(self) -> None:
        network = NETWORKS["conv_bn_silu"]

        output = reference(network, ignored_scope=("*",))(*network.inputs())

        assert torch.allclose(output, network.module()(*network.inputs()), atol=1e-5)

    @pytest.mark.parametrize("key", ["ignored_scope", "non_traceable"])
    def test_a_pattern_that_matches_nothing_is_an_error(self, key: str) -> None:
        with pytest.raises(
            QuantizationError, match=rf'{key} pattern "blok\*" matches no module; the nearest module name is "block"'
        ):
            reference(NETWORKS["residual"], **{key: ("stem*", "blok*")})

    def test_a_model_without_submodules_says_so(self) -> None:
        with pytest.raises(QuantizationError, match="the model has no submodule"):
            reference(NETWORKS["functional"], ignored_scope=("x",))


class TestReducedRange:
    def test_only_what_a_multiplication_reads_is_reduced(self) -> None:
        network = Network(lambda: nn.Sequential(nn.Conv2d(3, 4, 1), nn.MaxPool2d(2)))

        assert greatest_steps(network, reduce_range=False) == [255, 255, 255]
        assert greatest_steps(network, reduce_range=True) == [181, 255, 255]

    @pytest.mark.parametrize("network_name", ["conv_bn_silu", "residual", "depthwise", "grouped", "linear"])
    def test_two_products_fit_in_16_bits(self, network_name: str) -> None:
        graph = reference(NETWORKS[network_name], reduce_range=True)

        weights = [
            layer.get_quantized_weight().int_repr() for layer in graph.modules() if hasattr(layer, "is_decomposed")
        ]

        assert weights
        for weight in weights:
            channels = weight.flatten(1).sort(dim=1).values.long()
            assert 181 * int(channels[:, -2:].sum(1).max()) <= 2**15 - 1
            assert 181 * int(channels[:, :2].sum(1).min()) >= -(2**15)

    @pytest.mark.parametrize("backend_name", sorted(BACKENDS))
    def test_the_worst_sums_come_out_right(self, backend_name: str) -> None:
        """Equal weights and inputs at the top of the range: where sums saturate, the output is far too small."""
        convolution = nn.Conv2d(16, 8, 3, padding=1, bias=False)
        nn.init.constant_(convolution.weight, 0.1)
        inputs = (torch.ones(1, 16, 8, 8),)
        backend = BACKENDS[backend_name]()
        recipe = Recipe(MinMaxObserver, PerChannelMinMaxObserver, reduce_range=True)
        observed = prepare(convolution, recipe, backend.backend_config(), inputs)
        observed(*inputs)

        int8 = backend.lower(convert(observed, backend.backend_config()), inputs)

        assert torch.allclose(int8(*inputs), convolution(*inputs), atol=0.15)  # of 14.4; a step is 0.06


def test_values_that_only_silu_reads_are_judged_behind_it() -> None:
    """Of a convolution's output in [-8, 8], SiLU maps all below -7 to nearly 0: steps there are wasted."""
    convolution = nn.Conv2d(1, 1, 1, bias=False)
    nn.init.ones_(convolution.weight)
    inputs = (torch.linspace(-8, 8, 4096).reshape(1, 1, 64, 64),)
    config = BACKENDS["fbgemm"]().backend_config()
    recipe = Recipe(HistogramObserver, PerChannelMinMaxObserver, reduce_range=False)
    lows = []
    for reader in (nn.SiLU(), nn.MaxPool2d(1)):
        observed = prepare(nn.Sequential(convolution, reader), recipe, config, inputs)
        observed(*inputs)
        output = next(node for node in observed.graph.nodes if node.target == "0")
        observer = observed.get_submodule(str(next(iter(output.users)).target))
        lows.append(float(observer.bounds()[0]))

    assert -7 < lows[0] < -4
    assert lows[1] == pytest.approx(-8, abs=0.3)


class SharedConvolution(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.first, self.second = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4), nn.BatchNorm2d(4)
        nn.init.constant_(self.first.weight, 3.0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(self.conv(self.first(self.conv(x))))


def test_a_shared_convolution_with_two_batch_norms_is_refused() -> None:
    with pytest.raises(QuantizationError, match='"conv" is called 2 times with a batch norm behind it'):
        reference(Network(SharedConvolution, (1, 4, 8, 8)))


def test_the_float_model_is_left_as_it_was() -> None:
    module = NETWORKS["residual"].module()
    before = {name: value.clone() for name, value in module.state_dict().items()}

    reference(Network(lambda: module))

    assert all(torch.equal(before[name], value) for name, value in module.state_dict().items())
    assert {type(child) for child in module.stem} == {nn.Conv2d, nn.BatchNorm2d, nn.SiLU}


def test_small_channels_survive_beside_great_ones_only_with_a_step_for_each() -> None:
    def make() -> nn.Module:
        convolution = nn.Conv2d(3, 4, 1, bias=False)
        convolution.weight.data *= torch.logspace(-3, 0, 4).reshape(4, 1, 1, 1)
        return convolution

    network = Network(lambda: nn.Sequential(make(), conv_bn_silu(4, 4)))
    expected = network.module()[0].weight[0].detach()

    def error(**recipe: object) -> float:
        weight = reference(network, **recipe).get_submodule("0").get_weight()[0]
        return float((weight - expected).abs().max() / expected.abs().max())

    assert error() < 0.01
    assert error(weight=PerTensorMinMaxObserver) > 0.5


def test_outputs_of_a_list_keep_their_order() -> None:
    network = NETWORKS["concatenated"]

    assert [part.shape for part in reference(network)(*network.inputs())] == [(1, 4, 8, 8), (1, 8, 4, 4)]
    assert flat(network.module()(*network.inputs())).numel() == 4 * 64 + 8 * 16
