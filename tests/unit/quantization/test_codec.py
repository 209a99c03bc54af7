from __future__ import annotations

import json

import pytest
import torch
from small_networks import NETWORKS, Network, flat, reference
from torch import nn

from qgate.errors import ArtifactError
from qgate.quantization.backends import FbgemmBackend
from qgate.quantization.codec import decode, encode


@pytest.mark.parametrize("name", NETWORKS)
def test_a_graph_read_back_gives_the_same_outputs_bit_for_bit(name: str) -> None:
    network, backend = NETWORKS[name], FbgemmBackend()
    graph = reference(network, backend)

    document, tensors = encode(graph, network.inputs())
    read = decode(json.loads(json.dumps(document)), tensors)

    before, after = (backend.lower(form, network.inputs()) for form in (graph, read))
    with torch.no_grad():
        for seed in range(20, 24):
            assert torch.equal(flat(before(*network.inputs(seed))), flat(after(*network.inputs(seed))))


def test_weights_are_stored_as_int8() -> None:
    network = NETWORKS["residual"]
    _, tensors = encode(reference(network), network.inputs())

    stored = {name: value.dtype for name, value in tensors.items() if name.endswith(".weight")}

    assert len(stored) == 2
    assert set(stored.values()) == {torch.int8}


class Odd(nn.Module):
    """Values of each kind that a graph may hold."""

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        picked = x[..., 1:3, None]
        far = x.masked_fill(x > 0, float("-inf")).to(torch.float64)
        return {"picked": picked.squeeze(-1), "far": far, "shape": torch.zeros(x.shape[0], device=x.device)}


def test_slices_infinities_types_and_dictionaries_survive() -> None:
    network = Network(Odd)
    (x,) = network.inputs()

    graph = reference(network)
    outputs = decode(*encode(graph, (x,)))(x)

    assert torch.equal(outputs["picked"], graph(x)["picked"])
    assert outputs["picked"].shape == (1, 3, 8, 2)
    assert outputs["far"].dtype == torch.float64
    assert outputs["far"].isinf().sum() == (x > 0).sum()
    assert outputs["shape"].shape == (1,)


class Shares(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.share_memory_()


torch.fx.wrap("outside")


def outside(x: torch.Tensor) -> torch.Tensor:
    return x + 1


class Wrapped(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return outside(x)


@pytest.mark.parametrize(("module", "named"), [(Shares, "share_memory_"), (Wrapped, "outside")])
def test_what_an_artifact_cannot_hold_is_named_with_the_way_out(module: type[nn.Module], named: str) -> None:
    network = Network(module)

    with pytest.raises(ArtifactError, match=f"{named}.*non_traceable"):
        encode(reference(network), network.inputs())


class Counts(nn.Module):
    """Neither FX nor TorchScript can take it: its output is no tensor."""

    def forward(self, x: torch.Tensor) -> object:
        return object()


def test_a_module_that_torchscript_cannot_hold_either_is_named() -> None:
    network = Network(lambda: nn.Sequential(nn.Conv2d(3, 3, 1), Counts()), non_traceable=("1",))

    with pytest.raises(ArtifactError, match=r'module "1" \(Counts\) is kept whole, and TorchScript cannot'):
        encode(reference(network), network.inputs())
