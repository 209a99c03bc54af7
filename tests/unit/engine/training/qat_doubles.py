"""A small network, images to train it on, and a training that takes a second."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from small_networks import Residual

from qgate.config.model import (
    DataConfig,
    ModelConfig,
    ObserverConfig,
    Place,
    QuantizationConfig,
    SplitConfig,
    TimingConfig,
    TrainingConfig,
)
from qgate.engine.factory import FactoryDataset, FactoryOptions
from qgate.engine.load import Inputs
from qgate.engine.quantize import Plan
from qgate.engine.training.train import Lesson
from qgate.plugins import load_registry
from qgate.protocols import LoadedModel

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qgate.engine.training.loop import Training

PLACE = Place(Path("qgate.toml"), 7)


def images(count: int, seed: int = 0) -> FactoryDataset:
    """Draw images with their means for targets."""
    drawn = torch.rand(count, 3, 8, 8, generator=torch.Generator().manual_seed(seed))
    return FactoryDataset([(image, image.mean()) for image in drawn], "images")


def residual() -> torch.nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Residual().eval()


def outlying() -> torch.nn.Module:
    """Give a network with one channel whose weights are far greater than the others': one scale a tensor is bad."""
    module: Any = residual()
    with torch.no_grad():
        module.stem[1].weight[0] *= 40
        module.block[0].weight[:, 0] /= 40
    return module  # type: ignore[no-any-return]


def loaded_model(**hooks: Any) -> LoadedModel:
    return LoadedModel(hooks.pop("module", None) or residual(), (torch.rand(1, 3, 8, 8),), **hooks)


def lesson(
    loaded: LoadedModel | None = None,
    *,
    train: FactoryDataset | None = None,
    judged: Sequence[str] = (),
    backend: str = "fbgemm",
    **training: Any,
) -> Lesson:
    """Give a training of 16 images in batches of 4, or what is said instead."""
    loaded, registry = loaded or loaded_model(), load_registry()
    split = SplitConfig("factory", None, PLACE)
    config = TrainingConfig(**{"epochs": 3, "batch_size": 4, "learning_rate": 0.001, **training})
    recipe = QuantizationConfig(PLACE, "qat", backend, weight=ObserverConfig("per_tensor_minmax"), training=config)
    data = DataConfig(split, split, split)
    model = ModelConfig("toy", "factory", FactoryOptions("toy:model"), data, recipe, TimingConfig(), {}, PLACE)
    dataset = images(16) if train is None else train
    inputs = Inputs(loaded, images(4), images(4, seed=9), dataset)
    return Lesson(model, inputs, Plan.of(model, registry, loaded), judged, 0)


def calibrated(given: Lesson) -> torch.fx.GraphModule:
    observed = given.plan.observed(given.inputs.loaded)
    with torch.no_grad():
        for index in range(4):
            observed(given.inputs.calibration.sample(index).input.unsqueeze(0))
    return observed


def training(given: Lesson) -> Training:
    return given.training(calibrated(given), given.divided())
