"""The values of layers' outputs, and what int8 covers of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from small_networks import NETWORKS, reference
from torch import nn

from qgate.quantization.activations import OutputValues, output_values
from qgate.quantization.backends import FbgemmBackend
from qgate.quantization.layers import float_graph

NETWORK = NETWORKS["linear"]
CALIBRATED = [NETWORK.inputs(seed) for seed in range(1, 9)]  # as `reference` does
WIDER = [(3 * NETWORK.inputs(9)[0],)]


def values_of(batches: list[tuple[torch.Tensor, ...]]) -> np.ndarray:
    """Give what the first layer makes of the batches, its activation included."""
    layer = NETWORK.module()[0]
    assert isinstance(layer, nn.Linear)
    with torch.no_grad():
        return torch.cat([layer(*batch).relu().flatten() for batch in batches]).numpy()


def found_in(
    batches: list[tuple[torch.Tensor, ...]], layers: tuple[str, ...] = ("0",), count: int = 1
) -> list[OutputValues]:
    backend = FbgemmBackend()
    floats = float_graph(NETWORK.module(), backend.backend_config())
    return output_values(floats, reference(NETWORK, backend), batches, layers, count)


def test_the_values_are_those_of_float32() -> None:
    (found,) = found_in(WIDER)

    histogram, values = found.histogram, values_of(WIDER)
    edges = histogram.low + histogram.width * np.arange(histogram.bins + 1)
    assert found.layer == "0"
    assert histogram.counts.tolist() == pytest.approx(np.histogram(values, edges)[0].tolist(), abs=1)
    assert float(histogram.counts.sum()) == values.size


def test_the_range_is_that_which_calibration_chose() -> None:
    (found,) = found_in(CALIBRATED)

    levels = 181 if FbgemmBackend().needs_reduced_range() else 255
    low, high = found.covered
    assert low == 0
    assert high * levels / 255 == pytest.approx(values_of(CALIBRATED).max(), rel=1e-3)
    assert found.clipped == 0


def test_what_lies_beyond_the_range_is_counted() -> None:
    (found,) = found_in(WIDER)

    expected = (values_of(WIDER) > found.covered[1] * (1 + 0.5 / 255)).mean()
    assert expected > 0
    assert found.clipped == pytest.approx(expected)


def test_layers_without_a_quantized_output_are_passed_over() -> None:
    assert [found.layer for found in found_in(CALIBRATED, ("no such layer", "0", "input_1"), 1)] == ["0"]
    assert found_in(CALIBRATED, ("no such layer",), 3) == []
