"""A whole gate of one small model in memory: what it leaves behind, and what becomes of a step that fails."""

from __future__ import annotations

from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import pytest
import torch
from small_networks import NETWORKS, Fork
from torch import nn

from qgate import hookimpl
from qgate.blessed import measured_entries
from qgate.config.model import (
    DataConfig,
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
from qgate.engine.artifact import load_artifact, read_header
from qgate.engine.factory import FactoryDataset, FactoryLoader
from qgate.engine.load import Inputs
from qgate.engine.progress import Silent
from qgate.engine.run import Run
from qgate.engine.state import torch_state
from qgate.errors import DataError
from qgate.metrics import MeanMetric
from qgate.plugins import load_registry
from qgate.protocols import LoadedModel
from qgate.quantization.backends import FbgemmBackend

if TYPE_CHECKING:
    from collections.abc import Callable

    from qgate.blessed import Entry
    from qgate.results import ModelResult

PLACE = Place(Path("qgate.toml"), 1)


class Mean(MeanMetric):
    name = "mean"

    def score(self, prediction: Any, target: Any) -> float:
        if target == "crash":
            raise RuntimeError("a bug in the metric")
        return float(prediction.mean()) * (float("nan") if target == "nan" else 1)


class Plugin:
    @hookimpl
    def qgate_register_metrics(self) -> list[type]:
        return [Mean]


NUM_SAMPLES = 12
ENVIRONMENT = {"cpu": "this", "isa": ["avx2"], "num_threads": 1}


def images(seed: int = 0) -> torch.Tensor:
    return torch.randn(NUM_SAMPLES, 3, 8, 8, generator=torch.Generator().manual_seed(seed))


def dataset(inputs: torch.Tensor, target: object = None) -> FactoryDataset:
    return FactoryDataset([(image, target) for image in inputs], "images")


@pytest.fixture
def gate(tmp_path: Path) -> Callable[..., ModelResult]:
    """Run a gate; `thresholds` are limits by metric, and the other arguments what it works on."""

    def run(  # noqa: PLR0913  # all that a test may change
        thresholds: dict[str, dict[str, float]],
        *,
        module: nn.Module | None = None,
        target: object = None,
        timing: bool = True,
        open_inputs: Callable[[], Inputs] | None = None,
        blessed: dict[str, Entry] | None = MappingProxyType({}),
        evaluation: torch.Tensor | None = None,
        max_overlap: float = 1.0,
        num_samples: int = 4,
        **recipe: Any,
    ) -> ModelResult:
        module = module or NETWORKS["residual"].module()
        judged = images(1) if evaluation is None else evaluation
        inputs = Inputs(LoadedModel(module, (judged[:1],)), dataset(images()), dataset(judged, target))
        split = SplitConfig("factory", None, PLACE)
        model = ModelConfig(
            name="net",
            loader="factory",
            options=FactoryLoader.Options("module:net"),
            data=DataConfig(SplitConfig("factory", None, PLACE, num_samples), split, max_overlap=max_overlap),
            quantization=QuantizationConfig(PLACE, activation=ObserverConfig("minmax"), **recipe),
            timing=TimingConfig(warmup_rounds=1, max_seconds=30),
            thresholds={name: ThresholdConfig(name, limits, PLACE) for name, limits in thresholds.items()},
            place=PLACE,
        )
        config = GateConfig(
            tmp_path / "qgate.toml", "0" * 64, Settings(artifacts=tmp_path, cache_bytes=0), {"net": model}
        )
        registry = load_registry(plugins=[(Plugin(), "test")])
        return Run(config, model, registry, ENVIRONMENT, Silent()).judged(
            open_inputs or (lambda: inputs), blessed=blessed, timing=timing
        )

    return run


LIMITS = {"mean": {"max_drop": 0.1}, "size_reduction": {"lower_bound": -50.0}, "speedup": {"lower_bound": 0.001}}


def statuses(result: ModelResult) -> dict[str, str]:
    return {verdict.metric: verdict.status for verdict in result.verdicts}


def test_every_limit_is_measured_on_the_reloaded_artifact(gate: Any, tmp_path: Path) -> None:
    result = gate(LIMITS)

    assert statuses(result) == {"mean": "passed", "size_reduction": "passed", "speedup": "passed"}
    assert result.num_evaluation_samples == NUM_SAMPLES
    with torch.no_grad():
        float32 = NETWORKS["residual"].module()(images(1)).mean()
        int8 = torch.stack([load_artifact(tmp_path / "net.pt")(image[None]).mean() for image in images(1)]).mean()
    assert result.metrics["mean"]["baseline"] == pytest.approx(float(float32), abs=1e-6)
    assert result.metrics["mean"]["candidate"] == pytest.approx(float(int8), abs=1e-6)
    assert result.artifact.path == "net.pt"
    assert result.artifact.bytes == (tmp_path / "net.pt").stat().st_size
    assert result.metrics["size_reduction"]["candidate"] == result.artifact.bytes


@pytest.mark.parametrize("said", ["auto", True, False])
def test_the_range_is_recorded_as_it_was_resolved(said: Any, gate: Any, tmp_path: Path) -> None:
    needed = FbgemmBackend().needs_reduced_range()
    expected = needed if said == "auto" else said

    result = gate({"size_reduction": {"lower_bound": -50.0}}, reduce_range=said)

    assert result.quantization["reduce_range"] is expected
    assert read_header(tmp_path / "net.pt")["quantization"] == result.quantization
    # A full range on a CPU whose kernels saturate must not be judged as if it were sound.
    assert statuses(result) == {"size_reduction": "error" if needed and not expected else "passed"}


def state() -> tuple[Any, ...]:
    return torch.random.get_rng_state().tolist(), torch.get_num_threads(), torch.backends.quantized.engine


@pytest.mark.parametrize("kind", ["none", "data", "model", "metric"])
def test_torchs_state_is_restored_even_after_a_failure(kind: str, gate: Any) -> None:
    former = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        before = state()
        result = gate(
            LIMITS,
            module=Raises() if kind == "model" else None,
            target="crash" if kind == "metric" else None,
            open_inputs=no_data if kind == "data" else None,
        )
        assert state() == before
    finally:
        torch.set_num_threads(former)
    assert ("error" in statuses(result).values()) is (kind != "none")


def test_inside_a_run_the_threads_are_pinned_and_the_seed_is_set() -> None:
    drawn = []
    for _ in range(2):
        with torch_state(seed=7, num_threads=1):
            assert torch.get_num_threads() == 1
            drawn.append(torch.rand(3).tolist())
    assert drawn[0] == drawn[1]


class Raises(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.conv2d(x, torch.ones(2, 5, 1, 1))


def no_data() -> Inputs:
    raise DataError("is empty", path="images.txt", line=3)


def test_a_step_that_fails_is_an_error_of_every_limit(gate: Any) -> None:
    result = gate(LIMITS, open_inputs=no_data)

    assert statuses(result) == dict.fromkeys(LIMITS, "error")
    assert {verdict.message for verdict in result.verdicts} == {"not measured: images.txt:3: is empty"}
    assert result.artifact is None
    assert not result.passed


def test_what_was_measured_before_a_failure_is_still_judged(gate: Any) -> None:
    result = gate(LIMITS, target="crash")

    assert statuses(result) == {"mean": "error", "size_reduction": "passed", "speedup": "error"}
    assert 'metric "mean" failed at sample "0"' in result.verdicts[0].message
    assert "\n" not in result.verdicts[0].message


def test_a_model_that_cannot_be_traced_is_an_error_with_the_way_out(gate: Any) -> None:
    result = gate(LIMITS, module=nn.Sequential(nn.Conv2d(3, 3, 1), Fork()))

    assert statuses(result) == dict.fromkeys(LIMITS, "error")
    assert 'add "1" to `non_traceable`' in result.verdicts[0].message


def test_nan_is_an_error(gate: Any) -> None:
    result = gate({"mean": {"max_drop": 1e9}}, target="nan")

    assert statuses(result) == {"mean": "error"}


def test_without_timing_a_speed_limit_is_an_error(gate: Any) -> None:
    result = gate(LIMITS, timing=False)

    assert statuses(result) == {"mean": "passed", "size_reduction": "passed", "speedup": "error"}
    assert result.verdicts[2].message == "not measured: timing was switched off for this run"


def test_a_speed_that_is_missed_names_layers_of_the_user_and_one_that_is_held_takes_no_time_for_it(gate: Any) -> None:
    missed = gate({"speedup": {"lower_bound": 1000.0}})
    held = gate({"speedup": {"lower_bound": 0.001}})

    (verdict,) = missed.verdicts
    named = [item["layer"] for item in missed.metrics["speedup"]["slowest"]]
    assert verdict.status == "failed"
    assert 0 < len(named) <= 3
    assert set(named) <= {"x", "stem.0", "block.0"}
    assert all(f'"{name}" (' in verdict.message for name in named)
    assert "explain" not in held.seconds
    assert "slowest" not in held.metrics["speedup"]


def test_a_profile_that_crashes_hides_no_verdict(gate: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def crash(*_arguments: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr("qgate.engine.layer_times.profile", crash)
    monkeypatch.setattr("qgate.engine.layer_times.operations", crash)

    result = gate({"speedup": {"lower_bound": 1000.0}})

    assert statuses(result) == {"speedup": "failed"}
    assert result.kernels == {}
    assert len(result.notes) == 2
    assert all("RuntimeError: a bug" in note for note in result.notes)


def test_the_kernels_that_ran_are_counted(gate: Any) -> None:
    result = gate({"size_reduction": {"lower_bound": -50.0}})

    # Two convolutions by fbgemm, and a SiLU behind each that has no int8 kernel.
    assert (result.kernels["fbgemm"], result.kernels["float"]) == (2, 2)


def test_the_steps_times_add_up(gate: Any) -> None:
    seconds = gate(LIMITS).seconds

    steps = set(seconds) - {"total"}
    assert {"load", "hash", "calibrate", "quantize", "artifact", "reload", "evaluate", "metrics", "timing"} <= steps
    assert sum(seconds[step] for step in steps) == pytest.approx(seconds["total"], rel=0.1)


def test_the_same_data_for_both_is_counted_in_full(gate: Any) -> None:
    result = gate({"mean": {"max_drop": 1.0}}, evaluation=images(0).flip(0))

    assert result.calibration_overlap == 4
    assert result.notes == (
        "4 of 4 calibration samples (100%) are evaluation samples too, by content: int8's accuracy is flattered",
    )
    assert statuses(result) == {"mean": "passed"}


def test_data_that_nothing_shares_has_no_note(gate: Any) -> None:
    result = gate({"mean": {"max_drop": 1.0}})

    assert (result.calibration_overlap, result.notes) == (0, ())


def test_too_great_an_overlap_is_an_error_before_anything_is_calibrated(gate: Any) -> None:
    result = gate(LIMITS, evaluation=images(0), max_overlap=0.5)

    assert statuses(result) == dict.fromkeys(LIMITS, "error")
    assert "max_overlap allows 50%" in result.verdicts[0].message
    assert "calibrate" not in result.seconds
    assert result.artifact is None


REGRESSION = {"mean": {"max_regression": 0.001}, "size_reduction": {"lower_bound": -50.0}}


def bless(result: ModelResult) -> dict[str, Entry]:
    return dict(measured_entries(result.metrics, result.conditions))


def test_without_blessed_results_a_regression_is_an_error(gate: Any) -> None:
    result = gate(REGRESSION)

    assert statuses(result) == {"mean": "error", "size_reduction": "passed"}
    assert "no blessed results to compare with; write them: " in result.verdicts[0].message


def test_what_is_being_blessed_passes_and_so_does_the_same_again(gate: Any) -> None:
    first = gate(REGRESSION, blessed=None)
    second = gate(REGRESSION, blessed=bless(first))

    for result in (first, second):
        verdict = result.verdicts[0]
        assert (verdict.status, verdict.measured, verdict.interval) == ("passed", 0.0, (0.0, 0.0))


def test_the_conditions_change_with_the_labels_and_the_images_alone(gate: Any) -> None:
    limits = {"mean": {"max_drop": 1.0}}
    base, relabelled, other, ignored = (
        gate(limits, **changes).conditions["data_sha256"]
        for changes in ({}, {"target": "cat"}, {"evaluation": images(2)}, {"ignored_scope": ("stem.*",)})
    )

    assert len({base, relabelled, other}) == 3
    assert ignored == base


def test_other_evaluation_data_is_not_comparable(gate: Any) -> None:
    blessed = bless(gate(REGRESSION, blessed=None))

    verdict = gate(REGRESSION, blessed=blessed, target="cat").verdicts[0]

    assert (verdict.status, verdict.measured) == ("error", None)
    assert verdict.message.startswith("not comparable: the blessed value is of other evaluation data; ")


def test_a_run_that_crashes_in_a_metric_blesses_no_accuracy(gate: Any) -> None:
    result = gate(LIMITS, target="crash", blessed=None)

    assert set(bless(result)) == {"size_reduction"}


@pytest.mark.parametrize(
    ("num_samples", "notes"), [(12, ()), (64, ("calibrated on 12 samples, where num_samples asks for 64",))]
)
def test_fewer_calibration_samples_than_asked_for_are_noted(
    gate: Callable[..., ModelResult], num_samples: int, notes: tuple[str, ...]
) -> None:
    assert gate({"mean": {"max_drop": 1.0}}, num_samples=num_samples).notes == notes
