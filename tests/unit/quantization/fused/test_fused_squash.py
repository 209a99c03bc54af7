from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from fused_networks import SHAPE, compare, conv
from small_networks import Network
from torch import nn
from torch.nn import functional

from qgate.quantization.fused.tables import Scale, activation_table, squashed_table

if TYPE_CHECKING:
    from collections.abc import Callable


def results(seed: int = 0) -> torch.Tensor:
    """Draw what a layer may give, and far beyond."""
    near = 3 * torch.randn(200_000, generator=torch.Generator().manual_seed(seed))
    return torch.cat([near, torch.linspace(-60, 60, 200_001)])


@pytest.mark.parametrize("greatest", [3.8, 4.2, 4.9])
def test_a_squashed_result_gives_silu_to_within_a_step_where_a_plain_one_does_not(greatest: float) -> None:
    target = Scale((greatest + 0.28) / 255, round(0.28 / (greatest + 0.28) * 255))
    found = squashed_table(functional.silu, target)
    assert found is not None
    squash, scale, table = found
    x = results()

    t = squash.slope * x + squash.offset
    squashed = t * (t + 3).clamp(0, 6) / 6
    given = table[(squashed / scale.step).round().clamp(0, 255).long()].double()
    wanted = (functional.silu(x.double()) / target.step + target.zero_point).round().clamp(0, 255)

    assert activation_table(functional.silu, target) is None
    assert (given - wanted).abs().max() == 1


def test_no_table_is_made_where_a_byte_would_stand_for_more_than_two_steps() -> None:
    assert squashed_table(functional.silu, Scale(1e-3, 200)) is None


LAYERS = {
    "convolution": (lambda: conv(3, 8), lambda: conv(8, 4, 1)),
    "linear": (lambda: nn.Linear(14, 8), lambda: nn.Linear(8, 4)),
}


@pytest.mark.parametrize("layers", LAYERS.values(), ids=LAYERS)
def test_a_layer_of_small_results_is_squashed_and_within_a_step_of_the_reference_graph(
    layers: tuple[Callable[[], Any], ...],
) -> None:
    def build() -> nn.Module:
        torch.manual_seed(0)
        first, last = (make() for make in layers)
        first.weight.data *= 1.4
        return nn.Sequential(first, nn.SiLU(), last).eval()

    result = compare(Network(build, SHAPE))

    assert result.kinds == ["QuantizeInput", "layer+hardswish+table", "layer+float"]
    assert max(int(steps.abs().max()) for steps in result.steps.values()) == 1
