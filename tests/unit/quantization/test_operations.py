"""What nodes of a lowered graph are said to be."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from small_networks import BACKENDS, NETWORKS, reference

from qgate.quantization.fused import FusedBackend
from qgate.quantization.operations import Operation, count_kernels, operations


def found(name: str, backend: Any, **recipe: Any) -> dict[str, Operation]:
    network = NETWORKS[name]
    lowered = backend.lower_graph(reference(network, backend, **recipe))
    return operations(lowered, network.inputs(), backend.name)


def kinds(operations: dict[str, Operation]) -> dict[str, int]:
    return dict(Counter(operation.kind for operation in operations.values()))


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_stock_backend_pays_for_each_silu_with_conversions(backend: str) -> None:
    nodes = found("conv_bn_silu", BACKENDS[backend]())

    by_kind = {kind: [one.what for one in nodes.values() if one.kind == kind] for kind in ("kernel", "float")}
    assert by_kind == {"kernel": ["Conv2d", "Conv2d"], "float": ["SiLU", "SiLU"]}
    # The input is quantized; each convolution's result is dequantized, and what SiLU gives is quantized again.
    assert kinds(nodes)["conversion"] >= 4


def test_fused_layers_need_no_float_and_one_conversion_in() -> None:
    nodes = found("conv_bn_silu", FusedBackend())

    assert "float" not in kinds(nodes)
    assert "fallback" not in kinds(nodes)
    assert [one.what for one in nodes.values() if one.kind == "kernel"] == ["Conv2d", "Conv2d"]
    assert next(one.what for one in nodes.values()) == "QuantizeInput"


def test_a_convolution_by_onednn_names_its_implementation() -> None:
    nodes = found("conv_bn_silu", BACKENDS["onednn"]())

    kernels = {one.kernel for one in nodes.values() if one.what == "Conv2d"}
    # e.g. jit:avx2, brgconv:avx512_core_vnni: oneDNN's implementations name the instruction set behind a colon.
    assert all(kernel.startswith("onednn ") and kernel != "onednn " for kernel in kernels), kernels


def test_a_convolution_by_fbgemm_is_named_so() -> None:
    nodes = found("conv_bn_silu", BACKENDS["fbgemm"]())

    assert {one.kernel for one in nodes.values() if one.what == "Conv2d"} == {"fbgemm"}


def test_what_is_kept_whole_is_a_float_operator() -> None:
    nodes = found("kept_whole", BACKENDS["fbgemm"]())

    assert [one.what for one in nodes.values() if one.kind == "float"] == ["Fork"]


def test_a_view_moves_nothing_and_an_operator_in_place_does() -> None:
    class Net(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.relu_(x.reshape(-1) + 1).view(2, -1)

    nodes = operations(torch.fx.symbolic_trace(Net()), (torch.randn(4, 4),), "none")

    assert {one.what: one.kind for one in nodes.values()} == {
        "reshape": "other",
        "add": "float",
        "relu_": "float",
        "view": "other",
    }


def test_it_runs_where_the_caller_is_in_inference_mode() -> None:
    network, backend = NETWORKS["linear"], BACKENDS["fbgemm"]()
    lowered, inputs = backend.lower_graph(reference(network, backend)), network.inputs()

    with torch.inference_mode():
        nodes = operations(lowered, inputs, backend.name)

    assert kinds(nodes)["kernel"] >= 2


def test_kernels_are_counted_by_name_the_most_first() -> None:
    nodes = {
        "a": Operation("Conv2d", "kernel", "onednn jit:avx2"),
        "b": Operation("Conv2d", "kernel", "onednn jit:avx2"),
        "c": Operation("quantized.add", "fallback", "torch"),
        "d": Operation("SiLU", "float", "torch"),
        "e": Operation("byte table", "table", "table avx2"),
        "f": Operation("view", "other"),
    }

    counted = count_kernels(nodes)

    assert counted == {"onednn jit:avx2": 2, "not fused: torch": 1, "float": 1, "table avx2": 1}
    assert next(iter(counted)) == "onednn jit:avx2"
