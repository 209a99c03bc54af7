"""The step between calibration and the artifact, on a toy project."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, Any

import pytest
import torch
from toy_project import Folder

import qgate.engine.correct as step
from qgate.engine.gate import Gate
from qgate.engine.load import open_inputs
from qgate.engine.progress import Silent, StepClock
from qgate.engine.quantize import choose_calibration, describe, quantize
from qgate.errors import QuantizationError

if TYPE_CHECKING:
    from pathlib import Path

OFF = 'equalization = false\nweight_rounding = "nearest"\nbias_correction = false\n'
UNCORRECTED = "bias_correction = false\n"
SWITCHES = {
    "equalization": f"equalization = true\n{UNCORRECTED}",
    "rounding": f'weight_rounding = "gptq"\n{UNCORRECTED}',
    "bias": "",  # it is on unless it is said to be off
}


class Counting(Silent):
    def __init__(self) -> None:
        self.totals: dict[str, int | None] = {}
        self.counts: dict[str, int] = {}

    def start(self, step: str, total: int | None) -> None:
        self.step = step
        self.totals.setdefault(step, total)

    def advance(self, count: int = 1) -> None:
        self.counts[self.step] = self.counts.get(self.step, 0) + count


class Quantized:
    """The toy project, quantized with some lines more in its recipe."""

    def __init__(self, root: Path, lines: str) -> None:
        folder = Folder(root)
        folder.configure("[models.toy.thresholds.size_reduction]\nlower_bound = 0.1\n")
        text = folder.text("qgate.toml").replace('calibrator = "first_ones"', f'calibrator = "first"\n{lines}')
        folder.write("qgate.toml", text)
        self.gate = Gate.open(root / "qgate.toml")
        self.model = self.gate.models[0]
        inputs = open_inputs(self.model, self.gate.registry)
        chosen = choose_calibration(self.model, self.gate.registry, inputs, 0)
        self.progress = Counting()
        self.clock = StepClock(self.progress)
        torch.manual_seed(0)
        self.graph, self.recipe = quantize(self.model, self.gate.registry, inputs, chosen, self.clock)
        self.described = describe(self.model, self.recipe, len(chosen), 0)


@pytest.fixture
def quantized(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(tmp_path))
    return lambda lines="": Quantized(tmp_path, lines)


def tensors(graph: torch.fx.GraphModule) -> dict[str, torch.Tensor]:
    return {name: value.detach() for name, value in chain(graph.named_parameters(), graph.named_buffers())}


def same(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(value, right[name]) for name, value in left.items())


def test_what_is_switched_off_changes_nothing(quantized: Any) -> None:
    plain, off = quantized(UNCORRECTED), quantized(OFF)

    assert same(tensors(plain.graph), tensors(off.graph))
    assert "correct" not in plain.clock.seconds
    assert [off.described[key] for key in ("equalization", "weight_rounding", "bias_correction")] == [
        False,
        "nearest",
        False,
    ]


@pytest.mark.parametrize("switch", SWITCHES)
def test_each_switch_changes_numbers_only_and_is_told_of(quantized: Any, switch: str) -> None:
    plain, changed = quantized(UNCORRECTED), quantized(SWITCHES[switch])

    assert [node.name for node in plain.graph.graph.nodes] == [node.name for node in changed.graph.graph.nodes]
    assert not same(tensors(plain.graph), tensors(changed.graph))
    assert plain.described != changed.described


def test_every_layer_is_counted(quantized: Any) -> None:
    progress = quantized(SWITCHES["bias"]).progress

    assert progress.totals["correct"] == progress.counts["correct"] == 3


def test_rounding_that_takes_too_long_is_an_error_that_says_how_far_it_came(quantized: Any) -> None:
    with pytest.raises(
        QuantizationError, match=r"came to 1 of 3 layers in rounding_seconds = 1e-09; allow more"
    ) as raised:
        quantized(SWITCHES["rounding"] + "rounding_seconds = 1e-9\n")

    assert raised.value.line


def test_the_time_for_rounding_bounds_nothing_else(quantized: Any) -> None:
    assert quantized(SWITCHES["bias"] + "rounding_seconds = 1e-9\n").progress.counts["correct"] == 3


def test_the_same_seed_gives_the_same_numbers(quantized: Any) -> None:
    lines = SWITCHES["rounding"] + SWITCHES["bias"]

    assert same(tensors(quantized(lines).graph), tensors(quantized(lines).graph))


def test_no_more_samples_are_held_than_memory_is_set_aside_for(quantized: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first layer holds its inputs, (3, 8, 8), and its outputs, (16, 8, 8), twice in float32 but for the bytes."""
    held: list[int] = []
    correct = step.correct
    monkeypatch.setattr(
        step, "correct", lambda graph, samples, **rest: held.append(len(samples)) or correct(graph, samples, **rest)
    )
    a_sample = 2 * 4 * 64 * 32 + 4 * 64 * 16 + 64 * 16

    monkeypatch.setattr(step, "_MEMORY", 3 * a_sample)
    quantized(SWITCHES["bias"])
    monkeypatch.setattr(step, "_MEMORY", 1)
    quantized(SWITCHES["bias"])

    assert 2 <= held[0] <= 4
    assert held[1] == 1
