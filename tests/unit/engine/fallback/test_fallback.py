"""Whole gates of a network with layers that int8 spoils: a few weights are much greater than all others."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn

from qgate import hookimpl
from qgate.config.model import (
    DataConfig,
    FallbackConfig,
    GateConfig,
    ModelConfig,
    ObserverConfig,
    Place,
    QuantizationConfig,
    Settings,
    SplitConfig,
    ThresholdConfig,
    TimingConfig,
)
from qgate.engine.artifact import load_reference, read_header
from qgate.engine.factory import FactoryDataset, FactoryLoader
from qgate.engine.load import Inputs
from qgate.engine.progress import Silent
from qgate.engine.quantize import quantize_by
from qgate.engine.run import Run
from qgate.metrics import MeanMetric
from qgate.plugins import load_registry
from qgate.protocols import LoadedModel

if TYPE_CHECKING:
    from collections.abc import Callable

    from qgate.results import ModelResult

PLACE = Place(Path("qgate.toml"), 1)
LAYERS = ("first", "second", "third", "fourth")
GREAT = 12.0  # of all other weights, 0.12 is the greatest


class Spoilt(nn.Module):
    """Four layers whose fourth channel is always 0; in those that are named, what reads it has very great weights.

    They change nothing in float32. But where all weights of a layer have one scale, little is left of the others.
    """

    def __init__(self, *names: str) -> None:
        super().__init__()
        self.first, self.second, self.third, self.fourth = (nn.Conv2d(8, 8, 3, padding=1) for _ in LAYERS)
        for name in LAYERS[:-1]:
            self.get_submodule(name).weight.data[3] = 0
            self.get_submodule(name).bias.data[3] = 0
        for name in names:
            self.get_submodule(name).weight.data[0, 3] = GREAT

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for name in LAYERS[:-1]:
            x = self.get_submodule(name)(x).relu()
        return self.fourth(x)


def spoilt(*names: str) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Spoilt(*names).eval()


class Fidelity(MeanMetric):
    """How little of the target's power is missed: 1 for float32, whose outputs are the targets."""

    name = "fidelity"

    def score(self, prediction: Any, target: Any) -> float:
        return 1 - float((prediction - target).square().sum() / target.square().sum())


class Plugin:
    @hookimpl
    def qgate_register_metrics(self) -> list[type]:
        return [Fidelity]


def dataset(module: nn.Module, seed: int, *, labelled: bool = True) -> FactoryDataset:
    images = torch.randn(20, 8, 8, 8, generator=torch.Generator().manual_seed(seed))
    images[:, 3] = 0
    with torch.no_grad():
        targets = module(images) if labelled else [None] * len(images)
    return FactoryDataset(list(zip(images, targets, strict=True)), "images")


@pytest.fixture
def new_run(tmp_path: Path) -> Callable[..., Run]:
    """Make a run; `thresholds` are limits by metric."""

    def make(thresholds: dict[str, dict[str, float]], *, max_layers: int = 0, **recipe: Any) -> Run:
        split = SplitConfig("factory", None, PLACE)
        quantization = QuantizationConfig(
            PLACE,
            calibrator="first",
            activation=ObserverConfig("minmax"),
            weight=ObserverConfig("per_tensor_minmax"),
            reduce_range=True,  # the same noise on every CPU
            fallback=FallbackConfig(max_layers),
        )
        model = ModelConfig(
            name="net",
            loader="factory",
            options=FactoryLoader.Options("module:net"),
            data=DataConfig(replace(split, num_samples=4), split),
            quantization=replace(quantization, **recipe),
            timing=TimingConfig(warmup_rounds=1, max_seconds=5),
            thresholds={name: ThresholdConfig(name, limits, PLACE) for name, limits in thresholds.items()},
            place=PLACE,
        )
        config = GateConfig(
            tmp_path / "qgate.toml", "0" * 64, Settings(artifacts=tmp_path, cache_bytes=0), {"net": model}
        )
        registry = load_registry(plugins=[(Plugin(), "test")])
        return Run(config, model, registry, {"cpu": "this", "isa": [], "num_threads": 1}, Silent())

    return make


@pytest.fixture
def gate(new_run: Callable[..., Run]) -> Callable[..., ModelResult]:
    """Run a gate of a network some of whose layers are spoilt."""

    def run(
        thresholds: dict[str, dict[str, float]],
        *names: str,
        labelled: bool = True,
        calibration_seed: int = 0,
        timing: bool = True,
        **recipe: Any,
    ) -> ModelResult:
        module = spoilt(*names)
        calibration = dataset(module, calibration_seed, labelled=labelled)
        inputs = Inputs(LoadedModel(module, (torch.randn(1, 8, 8, 8),)), calibration, dataset(module, 1))
        return new_run(thresholds, **recipe).judged(lambda: inputs, blessed={}, timing=timing)

    return run


LIMIT = {"fidelity": {"max_drop": 0.01}}


def statuses(result: ModelResult) -> dict[str, str]:
    return {verdict.metric: verdict.status for verdict in result.verdicts}


@pytest.mark.parametrize("backend", ["fbgemm", "fused"])
@pytest.mark.parametrize("layer", ["first", "second", "third"])
def test_exactly_the_spoilt_layer_is_kept_float(backend: str, layer: str, gate: Any, tmp_path: Path) -> None:
    result = gate(LIMIT, layer, max_layers=2, backend=backend)

    assert statuses(result) == {"fidelity": "passed"}
    found = result.quantization["fallback"]
    assert [item["layer"] for item in found["layers"]] == [layer]
    assert found["layers"][0]["snr"] < 15
    assert found["layers"][0]["bytes"] == 8 * 8 * 9 * 3
    assert (found["max_layers"], found["reason"]) == (2, None)
    assert found["measured_on"] == "16 held-out calibration samples"
    assert result.quantization["ignored_scope"] == [layer]
    assert read_header(tmp_path / "net.pt")["quantization"] == result.quantization
    (note,) = result.notes
    assert note.startswith(f'fallback: kept float: "{layer}" (')
    assert result.seconds["fallback"] > 0


def test_ignoring_what_was_found_gives_the_same_artifact(gate: Any, tmp_path: Path) -> None:
    found = gate(LIMIT, "second", max_layers=2).quantization["ignored_scope"]
    first = load_reference(tmp_path / "net.pt").state_dict()
    gate(LIMIT, "second", ignored_scope=tuple(found))
    second = load_reference(tmp_path / "net.pt").state_dict()

    tensors = {key: value for key, value in first.items() if isinstance(value, torch.Tensor)}
    assert first.keys() == second.keys()
    assert all(torch.equal(value, second[key]) for key, value in tensors.items())


def test_what_is_good_enough_stays_as_it_is(gate: Any) -> None:
    result = gate(LIMIT, max_layers=2)

    assert statuses(result) == {"fidelity": "passed"}
    assert result.quantization["fallback"]["layers"] == []
    assert result.quantization["ignored_scope"] == []
    assert result.notes == ()


def test_of_two_spoilt_layers_one_is_not_enough(gate: Any) -> None:
    one = gate(LIMIT, "first", "third", max_layers=1)
    two = gate(LIMIT, "first", "third", max_layers=2)

    assert statuses(one) == {"fidelity": "failed"}
    assert one.quantization["ignored_scope"] == []
    (note,) = one.notes
    assert note.startswith('fallback: no layer is kept float: with "')
    assert "16 held-out calibration samples miss fidelity max_drop = 0.01 (it is 0." in note
    assert statuses(two) == {"fidelity": "passed"}
    assert sorted(two.quantization["ignored_scope"]) == ["first", "third"]


def test_a_limit_on_size_that_would_break_forbids_it(gate: Any) -> None:
    size = gate(LIMIT, "second").metrics["size_reduction"]["value"]

    result = gate({**LIMIT, "size_reduction": {"lower_bound": size - 0.01}}, "second", max_layers=2)

    assert statuses(result) == {"fidelity": "failed", "size_reduction": "passed"}
    assert result.notes == (
        "fallback: no layer is kept float: the limits on speed and size leave no room for any float layer",
    )


def test_a_limit_on_speed_that_would_break_forbids_it(gate: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    limits = {**LIMIT, "speedup": {"lower_bound": 0.001}}
    monkeypatch.setattr("qgate.engine.fallback.find.added_seconds", lambda *_arguments: dict.fromkeys(LAYERS, 10.0))

    timed, untimed = (gate(limits, "second", max_layers=2, timing=timing) for timing in (True, False))

    assert statuses(timed) == {"fidelity": "failed", "speedup": "passed"}
    assert timed.notes == (
        "fallback: no layer is kept float: the limits on speed and size leave no room for any float layer",
    )
    assert statuses(untimed) == {"fidelity": "passed", "speedup": "error"}


def test_where_speed_leaves_room_the_layers_cost_is_told(gate: Any) -> None:
    result = gate({**LIMIT, "speedup": {"lower_bound": 0.001}}, "second", max_layers=2)

    assert statuses(result) == {"fidelity": "passed", "speedup": "passed"}
    assert result.quantization["fallback"]["layers"][0]["seconds"] != 0


def test_without_labels_the_noise_on_the_outputs_tells(gate: Any) -> None:
    result = gate(LIMIT, "second", max_layers=2, labelled=False)

    assert statuses(result) == {"fidelity": "passed"}
    assert result.quantization["ignored_scope"][0] == "second"
    assert result.quantization["fallback"]["measured_on"] == "16 held-out calibration samples without labels"


def test_evaluation_samples_are_not_touched(gate: Any) -> None:
    result = gate(LIMIT, "second", max_layers=2, calibration_seed=1)

    assert statuses(result) == {"fidelity": "failed"}
    assert result.notes[1:] == (
        "fallback: no layer is kept float: every calibration sample is an evaluation sample too, so none is left to "
        "try recipes on",
    )


def test_a_search_that_crashes_leaves_the_recipe_as_it_is(gate: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def crash(*_arguments: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr("qgate.engine.fallback.find.layer_noise", crash)

    result = gate(LIMIT, "second", max_layers=2)

    assert statuses(result) == {"fidelity": "failed"}
    assert result.notes[0].startswith("fallback: no layer is kept float: RuntimeError: a bug (")


def test_a_missed_limit_names_the_layer_and_proposes_what_would_pass(gate: Any) -> None:
    result = gate(LIMIT, "second")

    (verdict,) = result.verdicts
    assert verdict.status == "failed"
    assert '; most noise is in "second" (' in verdict.message
    assert verdict.message.endswith('; with ignored_scope = ["second"] 16 held-out calibration samples keep the limits')
    assert result.metrics["fidelity"]["noisiest"][0]["layer"] == "second"
    assert statuses(gate(LIMIT, "second", ignored_scope=("second",))) == {"fidelity": "passed"}


def test_a_planted_scale_is_named_first_by_the_failed_gate(new_run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def planted(*arguments: Any) -> Any:
        graph, recipe = quantize_by(*arguments)
        graph.get_buffer("second_scale_0").mul_(20)
        return graph, recipe

    module = spoilt()
    inputs = Inputs(LoadedModel(module, (torch.randn(1, 8, 8, 8),)), dataset(module, 0), dataset(module, 1))
    monkeypatch.setattr("qgate.engine.reuse.quantize_by", planted)

    (verdict,) = new_run({"fidelity": {"max_drop": 0.002}}).judged(lambda: inputs, blessed={}, timing=True).verdicts

    assert verdict.status == "failed"
    assert '; most noise is in "second" (' in verdict.message


def test_a_missed_limit_that_nothing_helps_proposes_nothing(gate: Any) -> None:
    (verdict,) = gate({"fidelity": {"lower_bound": 1.5}}).verdicts

    assert verdict.status == "failed"
    assert "ignored_scope" not in verdict.message


def test_a_limit_that_is_kept_takes_no_time_for_advice(gate: Any) -> None:
    assert not {"explain", "fallback"} & set(gate(LIMIT).seconds)


def test_an_exported_artifact_is_the_judged_one(new_run: Any, gate: Any, tmp_path: Path) -> None:
    judged = gate(LIMIT, "second", max_layers=2).quantization
    module = spoilt("second")
    inputs = Inputs(LoadedModel(module, (torch.randn(1, 8, 8, 8),)), dataset(module, 0), dataset(module, 1))

    new_run(LIMIT, max_layers=2).exported(lambda: inputs, tmp_path / "exported.pt")

    assert read_header(tmp_path / "exported.pt")["quantization"] == judged
