"""An int8 model that has nothing to do with float32 any more: seen at once, and the layer named."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import planted_faults as faults
import pytest
import torch
from engine_doubles import header
from small_networks import NETWORKS, reference
from torch import nn

from qgate import hookimpl
from qgate.engine.artifact import artifact_bytes, edited_bytes, load_artifact, write_artifact
from qgate.engine.blame import blame
from qgate.engine.collapse import check_collapse
from qgate.engine.factory import FactoryDataset
from qgate.engine.gate import Gate
from qgate.engine.load import Inputs
from qgate.engine.state import torch_state
from qgate.errors import CollapseError
from qgate.plugins import load_registry
from qgate.protocols import LoadedModel
from qgate.quantization.backends import FbgemmBackend
from qgate.quantization.observers import PerTensorMinMaxObserver

if TYPE_CHECKING:
    from collections.abc import Callable

    from planted_faults import PlantedFault

    from qgate.plugins import Registry

ROOT = Path(__file__).parents[3]
# The worst int8 model that can be made in good faith.
WORST = """
[models.detector.quantization]
backend = "fbgemm"
activation = { observer = "minmax", reduce_range = true }
weight = { observer = "per_tensor_minmax" }

[models.detector.thresholds.map]
max_drop = 1.0
"""
DIGITS = f"""
schema_version = 1

[models.detector]
loader = "yolov5"
weights = "{ROOT}/examples/digits/digits.pt"
image_size = 192

[models.detector.data]
format = "coco"
calibration = {{ images = "{ROOT}/examples/digits/data/train", num_samples = 8 }}
evaluation = {{ images = "{ROOT}/examples/digits/data/val", annotations = "{ROOT}/examples/digits/data/val.json" }}
"""
YOLOV5N = """
schema_version = 1

[models.detector]
loader = "yolov5"
weights = "{assets}/yolov5n.pt"
image_size = 320

[models.detector.data]
format = "coco"
calibration = {{ images = "{assets}/coco128/images", num_samples = 8 }}
evaluation = {{ images = "{assets}/coco128/images", annotations = "{assets}/coco128/instances.json" }}
"""


@dataclass(frozen=True)
class Made:
    """A detector and its healthy int8 form."""

    inputs: Inputs
    artifact: Path
    registry: Registry

    def check(self, artifact: Path | None = None) -> None:
        """Do as a run does with an artifact, by default the healthy one."""
        artifact = artifact or self.artifact
        with torch_state(seed=0, num_threads=1):
            arms = {"float32": self.inputs.loaded.module, "int8": load_artifact(artifact, registry=self.registry)}
            check_collapse(self.inputs, range(8), arms, artifact, self.registry)

    def with_fault(self, fault: PlantedFault, folder: Path) -> Path:
        """Give the path of a copy with a fault in it."""
        path = folder / "faulty.pt"
        write_artifact(path, edited_bytes(self.artifact, fault.plant))
        return path


def make(text: str, folder: Path) -> Made:
    (folder / "qgate.toml").write_text(text + WORST, encoding="utf-8")
    gate = Gate.open(folder / "qgate.toml")
    gate.export("detector", folder / "healthy.pt")
    return Made(gate.inputs("detector"), folder / "healthy.pt", gate.registry)


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return make(DIGITS, tmp_path_factory.mktemp("digits"))


@pytest.fixture(scope="module")
def yolov5n(assets: Path, tmp_path_factory: pytest.TempPathFactory) -> Made:
    return make(YOLOV5N.format(assets=assets), tmp_path_factory.mktemp("yolov5n"))


@pytest.mark.parametrize("model", ["digits", "yolov5n"])
def test_the_worst_healthy_model_is_no_collapse(model: str, request: pytest.FixtureRequest) -> None:
    request.getfixturevalue(model).check()


IN_DIGITS = [
    faults.scaled_output("model.3.conv", 1000),
    faults.scaled_output("model.3.conv", 0.001),
    faults.zeroed_weight("model.24.m.2"),
    faults.collapsed_range("model.3.act"),
    faults.zeroed_weight("model.0.conv"),
    faults.scaled_weight("model.20.m.0.cv1.conv", 1000),
    faults.nan_in("model.8.cv3.conv", "bias"),
    faults.nan_scale("model.6.cv3.act"),
]
IN_YOLOV5N = [
    faults.scaled_output("model.4.m.0.cv1.act", 1000),
    faults.zeroed_weight("model.4.m.1.cv1.conv"),
]


@pytest.mark.parametrize(
    ("model", "fault"),
    [("digits", fault) for fault in IN_DIGITS] + [("yolov5n", fault) for fault in IN_YOLOV5N],
    ids=str,
)
def test_a_fault_fails_at_once_and_its_layer_is_named(
    model: str, fault: PlantedFault, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    made = request.getfixturevalue(model)
    artifact = made.with_fault(fault, tmp_path)

    with pytest.raises(CollapseError) as caught:
        made.check(artifact)

    message = str(caught.value)
    assert "weight" not in str(fault) or f'ignored_scope = ["{fault.layer}"]' in message
    assert message.startswith("the int8 model has collapsed: ")
    assert f'"{fault.layer}"' in message.partition("first to go wrong is")[2]
    assert "\n" not in message


def test_the_message_has_the_figures_and_says_what_to_do(digits: Made, tmp_path: Path) -> None:
    artifact = digits.with_fault(faults.scaled_output("model.3.conv", 0.001), tmp_path)

    with pytest.raises(CollapseError) as caught:
        digits.check(artifact)

    assert re.search(r"scale \S+e-05 and zero point \d+, 9\d% of them are clipped and 0\.[01] dB", str(caught.value))
    assert "the range is too narrow: calibrate on more samples" in str(caught.value)


class Lambda(nn.Module):
    def __init__(self, function: Callable[[torch.Tensor], Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: torch.Tensor) -> Any:
        return self.function(x)


def noise(seed: int, x: torch.Tensor) -> torch.Tensor:
    return torch.randn(x.shape, generator=torch.Generator().manual_seed(seed + int(x.sum() * 1000)))


def check(
    float32: Callable[[torch.Tensor], Any],
    int8: Callable[[torch.Tensor], Any],
    artifact: Path,
    *,
    samples: list[torch.Tensor] | None = None,
    postprocess: Callable[[Any, Any], Any] = lambda output, _: output,
) -> None:
    """Check two functions against each other; whatever is wrong with the one is in no layer of the artifact."""
    samples = samples or [torch.randn(4, 16, generator=torch.Generator().manual_seed(seed)) for seed in range(8)]
    data = FactoryDataset([(sample, None) for sample in samples], "samples")
    loaded = LoadedModel(Lambda(float32), (samples[0],), postprocess=postprocess)
    arms: dict[str, nn.Module] = {"float32": Lambda(float32), "int8": Lambda(int8)}
    check_collapse(Inputs(loaded, data, data), range(len(samples)), arms, artifact, load_registry())


@pytest.mark.parametrize(
    ("said", "float32", "int8"),
    [
        ("NaN or infinite values at calibration sample", lambda x: x, lambda x: x / 0),
        ("NaN or infinite values at calibration sample", lambda x: {"a": [x]}, lambda x: {"a": [x * float("nan")]}),
        ("its output is the same for every sample", lambda x: x + 1, torch.ones_like),
        ("output 2 of 2 is the same", lambda x: (x, x), lambda x: (x, torch.zeros_like(x))),
        ("bears no relation", lambda x: x, lambda x: noise(1, x)),
        ("bears no relation", lambda x: x + 5, lambda x: noise(1, x) + 5),
        ("bears no relation", lambda x: x, lambda x: x.clamp(-0.01, 0.01)),
    ],
)
def test_each_symptom_is_told(
    said: str, float32: Callable[[torch.Tensor], Any], int8: Callable[[torch.Tensor], Any], digits: Made
) -> None:
    with pytest.raises(CollapseError, match=said):
        check(float32, int8, digits.artifact)


def above(limit: float) -> Callable[[torch.Tensor, Any], list[float]]:
    return lambda output, _: [value for value in output.flatten().tolist() if value > limit]


def test_a_model_that_predicts_nothing_any_more_is_told(digits: Made) -> None:
    with pytest.raises(CollapseError, match="predicts nothing in 8 calibration samples, float32 something in 8 of"):
        check(lambda x: x + 10, lambda x: x * 0.9 + 6, digits.artifact, postprocess=above(9.99))


@pytest.mark.parametrize(
    ("float32", "int8"),
    [
        (lambda x: x, lambda x: x + 0.3 * noise(1, x)),
        (lambda x: x + 20, lambda x: noise(1, x) + 20),  # what varies is below what eight bits can tell
        (torch.zeros_like, lambda x: 0.01 * noise(1, x)),
        (lambda x: x.masked_fill(x > 0, -torch.inf), lambda x: x.masked_fill(x > 0, -torch.inf)),
        (lambda x: x.masked_fill(x > 0, -torch.inf), lambda x: x.masked_fill(x > 0, -1e9)),
        (lambda x: x[x > 0], lambda x: x[x > 0.01]),
        (lambda x: x * float("nan"), lambda x: x * float("nan")),  # float32's own fault, which its metrics will show
        (lambda x: x.argmax(1), lambda x: x.flip(1).argmax(1)),
        (lambda x: "cat", lambda x: "dog"),
        (lambda x: x[:0], lambda x: x[:0]),
    ],
)
def test_what_may_happen_to_a_healthy_model_is_no_collapse(
    float32: Callable[[torch.Tensor], Any], int8: Callable[[torch.Tensor], Any], digits: Made
) -> None:
    check(float32, int8, digits.artifact, postprocess=lambda output, _: 0)


@pytest.mark.parametrize("count", [1, 2, 8])
def test_samples_that_are_all_alike_are_no_collapse(count: int, digits: Made) -> None:
    samples = [torch.ones(4, 16) + torch.randn(4, 16) * 1e-4 for _ in range(count)]

    check(lambda x: x, lambda x: (x * 20).round() / 20, digits.artifact, samples=samples)


def test_a_single_prediction_that_misses_its_limit_is_no_collapse(digits: Made) -> None:
    samples = [torch.ones(4, 16) * factor for factor in (1.0, 0.8, 0.7, 0.6, 0.5, 0.3, 0.2, 0.1)]

    check(lambda x: x, lambda x: x * 0.98, digits.artifact, samples=samples, postprocess=above(0.99))


class Broken:
    """Kernels that compute one layer wrongly."""

    name = "broken"

    def __init__(self) -> None:
        self.sound = FbgemmBackend()

    def is_available(self) -> None:
        return None

    def needs_reduced_range(self) -> bool:
        return False

    def backend_config(self) -> Any:
        return self.sound.backend_config()

    def lower_graph(self, reference: torch.fx.GraphModule) -> torch.fx.GraphModule:
        lowered: Any = self.sound.lower_graph(reference)
        lowered.get_submodule("1.0").scale *= 1000
        return lowered

    def lower(self, reference: torch.fx.GraphModule, example_inputs: tuple[torch.Tensor, ...]) -> nn.Module:
        return self.lower_graph(reference)


class Plugin:
    @hookimpl
    def qgate_register_backends(self) -> list[type]:
        return [Broken]


def test_kernels_are_blamed_where_the_graph_is_sound(tmp_path: Path) -> None:
    network = NETWORKS["conv_bn_silu"]
    registry = load_registry(plugins=[(Plugin(), "broken kernels")])
    content = artifact_bytes(reference(network), network.inputs(), header(backend="broken", non_traceable=[]))
    write_artifact(tmp_path / "model.pt", content)
    with torch.no_grad():
        int8 = load_artifact(tmp_path / "model.pt", registry=registry)(*network.inputs())

    said = blame(network.module(), network.inputs(), int8, tmp_path / "model.pt", registry)

    assert said.startswith('every layer of the reference graph is sound; the kernels of backend "broken" are to blame')
    assert 'first in "1.0"' in said
    assert "use another backend" in said


def test_where_errors_add_up_the_worst_layer_is_named(digits: Made) -> None:
    inputs, _ = digits.inputs.loaded.preprocess(digits.inputs.calibration.sample(0).input)
    with torch.no_grad():
        int8 = load_artifact(digits.artifact)(*inputs)

    said = blame(digits.inputs.loaded.module, inputs, int8, digits.artifact, digits.registry)

    assert said.startswith("no layer is bad by itself, the errors of many add up; the worst is ")


def test_a_search_that_fails_says_why(digits: Made) -> None:
    said = blame(nn.Identity(), (), None, Path("gone.pt"), digits.registry)

    assert said.startswith("which layer is to blame could not be found out (ArtifactError: gone.pt: no such file")


def test_a_collapse_is_the_reason_of_limits_that_it_leaves_unmeasured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Zero(PerTensorMinMaxObserver):
        """A weight observer that makes every weight zero."""

        name = "zero"

        def bounds(self) -> tuple[torch.Tensor, torch.Tensor]:
            low, high = super().bounds()
            return low * 1e6, high * 1e6

    class Observers:
        @hookimpl
        def qgate_register_observers(self) -> list[type]:
            return [Zero]

    recipe = (
        WORST.replace("per_tensor_minmax", "zero") + "[models.detector.thresholds.size_reduction]\nlower_bound = 0.5\n"
    )
    (tmp_path / "qgate.toml").write_text(DIGITS + recipe, encoding="utf-8")
    monkeypatch.setattr(sys, "path", [*sys.path])

    gate = Gate.open(tmp_path / "qgate.toml", plugins=[(Observers(), "zero observer")])
    result = gate.run("detector")

    assert {verdict.metric: verdict.status for verdict in result.verdicts} == {
        "map": "error",
        "size_reduction": "passed",
    }
    assert "not measured: the int8 model has collapsed" in result.verdicts[0].message
    assert 'first to go wrong is "model.0.conv"' in result.verdicts[0].message
    assert "evaluate" not in result.seconds
