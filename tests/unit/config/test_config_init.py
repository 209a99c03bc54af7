"""`qgate init`: the text that it writes can be read back, and says what the plugins proposed."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pluggy
import pytest

from qgate import hookimpl, hookspecs
from qgate.config import read_config
from qgate.config.init import propose
from qgate.errors import ConfigError, DataError, PluginError
from qgate.plugins import Registry

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.unit.config.conftest import Plugin


class Proposer:
    """Knows `.pt` files and folders."""

    def __init__(self, calibration: str, count: int = 0) -> None:
        self.calibration = calibration
        self.count = count

    @hookimpl
    def qgate_propose_model(self, weights: Path) -> dict[str, Any] | None:
        return (
            {"loader": "net", "weights": weights, "scales": (0.5, 1), "half": True} if weights.suffix == ".pt" else None
        )

    @hookimpl
    def qgate_propose_data(self, data: Path) -> dict[str, Any] | None:
        if data.is_file():
            raise DataError("ends in the middle", path=data)
        splits = {"calibration": {"path": data / self.calibration}, "evaluation": {"path": data / "val.txt"}}
        found = {"data": {"format": "text", **splits}, "thresholds": {"map": {"max_drop": 0.015}}}
        return found | ({"num_evaluation_samples": self.count} if self.count else {})


class Kernels:
    """A backend `fused`, as the core registers one, that does or does not run here."""

    name = "fused"

    def __init__(self, reason: str | None = None) -> None:
        self.reason = reason

    @hookimpl
    def qgate_register_backends(self) -> list[Any]:
        reason = self.reason

        class Fused:
            name = "fused"

            def is_available(self) -> str | None:
                return reason

        return [Fused]


@pytest.fixture
def registry_of(plugin: Plugin) -> Callable[..., Registry]:
    def make(*plugins: object, kernels: Kernels | None = None) -> Registry:
        manager = pluggy.PluginManager("qgate")
        manager.add_hookspecs(hookspecs)
        for index, item in enumerate((plugin, *plugins, kernels or Kernels())):
            manager.register(item, f"plugin{index}")
        return Registry(manager)

    return make


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / "weights" / "my net v1.2.pt"
    path.parent.mkdir()
    path.touch()
    return path


def test_the_text_is_a_valid_file_with_paths_relative_to_its_folder(
    tmp_path: Path, weights: Path, registry_of: Callable[..., Registry], monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = registry_of(Proposer("train.txt"))
    monkeypatch.chdir(weights.parent)
    text = propose(Path(weights.name), tmp_path, tmp_path / "project", registry)
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / "qgate.toml").write_text(text, encoding="utf-8")
    model = read_config(tmp_path / "project" / "qgate.toml", registry).models["my-net-v1.2"]
    assert 'weights = "../weights/my net v1.2.pt"' in text.splitlines()
    assert model.options.weights.samefile(weights)
    assert (model.options.scales, model.options.half) == ((0.5, 1.0), True)
    assert model.data.calibration.options.path == tmp_path / "train.txt"
    assert {name: threshold.limits for name, threshold in model.thresholds.items()} == {
        "map": {"max_drop": 0.015},
        "size_reduction": {"lower_bound": 0.70},
        "speedup": {"lower_bound": 1.2},
    }


@pytest.mark.parametrize(
    ("reason", "backend", "baseline_form"), [(None, "fused", "fastest"), ("it has no vectors", "fbgemm", "eager")]
)
def test_the_fastest_kernels_are_proposed_where_they_run(
    reason: str | None, backend: str, baseline_form: str, weights: Path, registry_of: Callable[..., Registry]
) -> None:
    folder = weights.parent
    registry = registry_of(Proposer("train.txt"), kernels=Kernels(reason))
    text = propose(weights, folder, folder, registry)
    (folder / "qgate.toml").write_text(text, encoding="utf-8")
    model = read_config(folder / "qgate.toml", registry).models["my-net-v1.2"]
    assert (model.quantization.backend, model.timing.baseline_form) == (backend, baseline_form)
    assert (str(reason) in text) is (reason is not None)


@pytest.mark.parametrize(("calibration", "warned"), [("train.txt", False), ("val.txt", True)])
def test_calibrating_on_the_evaluation_set_is_remarked_on(
    calibration: str, warned: bool, tmp_path: Path, weights: Path, registry_of: Callable[..., Registry]
) -> None:
    text = propose(weights, tmp_path, tmp_path, registry_of(Proposer(calibration)))
    assert ("Calibration samples should not be evaluation samples" in text) is warned


@pytest.mark.parametrize(("count", "said"), [(128, True), (0, False)])
def test_a_limit_that_follows_from_the_number_of_samples_says_so(
    count: int, said: bool, tmp_path: Path, weights: Path, registry_of: Callable[..., Registry]
) -> None:
    text = propose(weights, tmp_path, tmp_path, registry_of(Proposer("train.txt", count)))
    assert ("What 128 evaluation samples can settle: about 0.25 / sqrt(128)" in text) is said
    assert ("can settle" in text) is said


def test_the_plugin_registered_last_is_asked_first(
    tmp_path: Path, weights: Path, registry_of: Callable[..., Registry]
) -> None:
    later = Proposer("later.txt")
    assert "later.txt" in propose(weights, tmp_path, tmp_path, registry_of(Proposer("train.txt"), later))


def test_files_that_are_not_there_are_named(tmp_path: Path, registry_of: Callable[..., Registry]) -> None:
    with pytest.raises(ConfigError, match=r"nothing\.pt: there is no such file or folder; --weights must name one$"):
        propose(tmp_path / "nothing.pt", tmp_path, tmp_path, registry_of())


def test_weights_that_no_plugin_knows_are_an_error(tmp_path: Path, registry_of: Callable[..., Registry]) -> None:
    (tmp_path / "model.tflite").touch()
    with pytest.raises(
        ConfigError, match=r'model\.tflite: no plugin recognises it; .* loader = "factory": docs/custom-models\.md$'
    ):
        propose(tmp_path / "model.tflite", tmp_path, tmp_path, registry_of(Proposer("a")))


def test_the_reason_of_a_plugin_reaches_the_user(weights: Path, registry_of: Callable[..., Registry]) -> None:
    with pytest.raises(ConfigError) as error:
        propose(weights, weights, weights.parent, registry_of(Proposer("a")))
    assert str(error.value) == f"{weights}: no plugin recognises it; plugin1: ends in the middle"


def test_a_crash_of_a_plugin_is_its_own_error(weights: Path, registry_of: Callable[..., Registry]) -> None:
    @hookimpl
    def qgate_propose_model(weights: Path) -> None:
        raise KeyError("layers")

    broken = SimpleNamespace(qgate_propose_model=qgate_propose_model)
    with pytest.raises(PluginError, match='"plugin1": qgate_propose_model failed: KeyError'):
        propose(weights, weights, weights.parent, registry_of(broken))
