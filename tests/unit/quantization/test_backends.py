from __future__ import annotations

import pytest
import torch
from small_networks import BACKENDS, NETWORKS, flat, reference

from qgate.quantization.backends import engine


@pytest.mark.parametrize("backend_name", BACKENDS)
@pytest.mark.parametrize("name", NETWORKS)
def test_int8_outputs_are_near_float_outputs(name: str, backend_name: str) -> None:
    network, backend = NETWORKS[name], BACKENDS[backend_name]()

    int8 = backend.lower(reference(network, backend), network.inputs())

    with torch.no_grad():
        expected = flat(network.module()(*network.inputs(3)))
        error = flat(int8(*network.inputs(3))) - expected
    # 8 bits leave about 1/256 of the range a layer; these networks have at most four.
    assert 0 < error.square().mean().sqrt() < 0.04 * expected.std()


@pytest.mark.parametrize("backend_name", BACKENDS)
def test_the_engine_is_put_back(backend_name: str) -> None:
    network, backend = NETWORKS["conv_bn_silu"], BACKENDS[backend_name]()

    with engine("onednn" if backend_name == "fbgemm" else "fbgemm"):
        former = torch.backends.quantized.engine
        backend.lower(reference(network, backend), network.inputs())
        assert torch.backends.quantized.engine == former


def test_the_engine_is_put_back_after_an_error() -> None:
    former = torch.backends.quantized.engine
    with pytest.raises(ZeroDivisionError), engine("onednn"):
        _ = 1 / 0
    assert torch.backends.quantized.engine == former


def test_an_engine_that_torch_lacks_says_so() -> None:
    class Absent(BACKENDS["fbgemm"]):  # type: ignore[misc]
        name = "absent"

    assert BACKENDS["fbgemm"]().is_available() is None
    assert Absent().is_available() == 'this build of torch has no "absent" engine'


@pytest.mark.parametrize("backend_name", BACKENDS)
def test_an_engine_needs_a_reduced_range_exactly_where_it_saturates(backend_name: str) -> None:
    # The greatest products there are: 64 of 255 * 127, whose exact sum is one step of the output.
    weight = torch.quantize_per_tensor(torch.full((8, 64, 1, 1), 127.0), 1.0, 0, torch.qint8)
    image = torch.quantize_per_tensor(torch.full((1, 64, 4, 4), 255.0), 1.0, 0, torch.quint8)
    with engine(backend_name):
        packed = torch.ops.quantized.conv2d_prepack(weight, None, [1, 1], [0, 0], [1, 1], 1)
        result = torch.ops.quantized.conv2d(image, packed, 64 * 255 * 127 / 100, 0).int_repr()

    assert BACKENDS[backend_name]().needs_reduced_range() is bool((result != 100).any())
