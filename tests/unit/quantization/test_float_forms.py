from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from small_networks import NETWORKS, Network, conv_bn_silu, flat
from torch import nn

from qgate.quantization.float_forms import float_forms

if TYPE_CHECKING:
    import numpy as np


@pytest.mark.parametrize("name", NETWORKS)
def test_every_form_computes_what_the_model_does(name: str) -> None:
    network = NETWORKS[name]
    forms = float_forms(network.module(), network.inputs(), network.non_traceable)

    assert list(forms)[:2] == ["eager", "channels_last"]
    with torch.no_grad():
        expected = flat(network.module()(*network.inputs(5)))
        for form in forms.values():
            assert torch.allclose(flat(form(*network.inputs(5))), expected, atol=1e-5)


def test_batch_norms_are_folded() -> None:
    network = NETWORKS["residual"]

    eager = float_forms(network.module(), network.inputs())["eager"]

    called = {type(eager.get_submodule(str(n.target))) for n in eager.graph.nodes if n.op == "call_module"}
    assert called == {nn.Conv2d, nn.SiLU}


class SharedConvolution(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.first, self.second = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4), nn.BatchNorm2d(4)
        nn.init.constant_(self.first.weight, 3.0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv(x)
        return self.second(self.conv(self.first(x))) + x


def test_a_convolution_that_others_read_too_is_not_folded_into() -> None:
    network = Network(SharedConvolution, (1, 4, 8, 8))

    eager = float_forms(network.module(), network.inputs())["eager"]

    with torch.no_grad():
        assert torch.allclose(eager(*network.inputs()), network.module()(*network.inputs()), atol=1e-6)


class Branches(nn.Module):
    """A trace would keep one branch."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if bool(x.mean() < 0.5):
            return x + 1
        return x - 1


class BeyondTorchScript(nn.Module):
    """It cannot be compiled, and a trace would keep one branch."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + 1 if self.is_upper(x.detach().numpy()) else x - 1


class Upper(BeyondTorchScript):
    """A flipped input takes the other branch."""

    def is_upper(self, x: np.ndarray) -> bool:
        return bool(x[..., 0].sum() > x[..., -1].sum())


class Bright(BeyondTorchScript):
    """A darker input takes the other branch."""

    def is_upper(self, x: np.ndarray) -> bool:
        return bool(x.mean() > 0.25)


def test_the_frozen_form_keeps_the_branches_of_what_was_kept_whole() -> None:
    network = Network(lambda: nn.Sequential(nn.Conv2d(3, 3, 1), Branches()), non_traceable=("1",))

    forms = float_forms(network.module(), network.inputs(), ("1",))

    assert list(forms) == ["eager", "channels_last", "frozen"]
    with torch.no_grad():
        for shift in (-5, 5):
            inputs = network.inputs()[0] + shift
            expected = network.module()(inputs)
            for form in forms.values():
                assert torch.allclose(form(inputs), expected, atol=1e-5)


@pytest.mark.parametrize("kind", [Upper, Bright])
def test_a_model_whose_trace_would_lie_has_no_frozen_form(kind: type[nn.Module]) -> None:
    module = nn.Sequential(nn.Conv2d(3, 3, 1), kind()).eval()
    nn.init.dirac_(module[0].weight)
    nn.init.zeros_(module[0].bias)
    inputs = (torch.linspace(0.1, 1, 3 * 64).reshape(1, 3, 8, 8),)

    assert list(float_forms(module, inputs, ("1",))) == ["eager", "channels_last"]


def test_the_model_is_left_as_it_was() -> None:
    module = nn.Sequential(conv_bn_silu(3, 8)).eval()
    before = {name: value.clone() for name, value in module.state_dict().items()}

    float_forms(module, (torch.randn(1, 3, 8, 8),))

    assert all(torch.equal(before[name], value) for name, value in module.state_dict().items())
    assert module[0][0].weight.is_contiguous()
