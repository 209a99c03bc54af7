"""The float32 model and its data, opened and checked: everything that can go wrong before anything slow starts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from qgate.engine.evaluate import brief, compares_with_float32
from qgate.engine.slices import check_slices
from qgate.errors import DataError, ModelError, QGateError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from qgate.config.model import ModelConfig, Place, SplitConfig
    from qgate.plugins import Registry
    from qgate.protocols import Dataset, LoadedModel

__all__ = ["Inputs", "open_inputs"]


@dataclass(frozen=True)
class Inputs:
    """What a gate works on."""

    loaded: LoadedModel
    calibration: Dataset
    evaluation: Dataset
    train: Dataset | None = None


def open_inputs(config: ModelConfig, registry: Registry) -> Inputs:
    """Load the model and open its data; evaluation data needs targets only where a limited metric does.

    Raises `ModelError`, `DataError`, `ConfigError` for a slice that is none.
    """
    loaded = load_model(config, registry)
    check_slices(config, registry, loaded.class_names)
    limited = [registry.metrics.get(name) for name in config.thresholds if name in registry.metrics]
    targets = not all(map(compares_with_float32, limited))
    return Inputs(
        loaded,
        _open_split("calibration", config.data.calibration, registry, loaded, require_targets=False),
        _open_split("evaluation", config.data.evaluation, registry, loaded, require_targets=targets),
        _open_training(config, registry, loaded),
    )


def _open_training(config: ModelConfig, registry: Registry, loaded: LoadedModel) -> Dataset | None:
    """Open the data that is trained on; None where nothing is."""
    recipe, split = config.quantization, config.data.train
    if recipe.approach == "ptq" or split is None:
        return None
    is_supervised = recipe.training.loss == "supervised"
    return _open_split("training", split, registry, loaded, require_targets=is_supervised)


def load_model(config: ModelConfig, registry: Registry) -> LoadedModel:
    """Load the float32 model. Raises `ModelError`; a loader that raises anything else is named."""
    try:
        loaded = registry.loaders.get(config.loader)().load(config.options)
    except QGateError as error:
        raise _placed(error, config.place, config.option_places) from error
    except Exception as error:
        raise ModelError(f'[models.{config.name}] loader "{config.loader}" failed: {brief(error)}') from error
    _check_loaded(loaded, config)
    return loaded


def _check_loaded(loaded: LoadedModel, config: ModelConfig) -> None:
    """Raise `ModelError` where what was loaded is no module with a tuple of tensors as its example inputs."""
    inputs: Any = loaded.example_inputs
    if not isinstance(loaded.module, torch.nn.Module):
        found = f"module must be a torch.nn.Module, got {type(loaded.module).__name__}"
    elif not isinstance(inputs, tuple):
        found = f"example_inputs must be a tuple of tensors, e.g. (torch.zeros(1, 3),), got {type(inputs).__name__}"
    elif not inputs or not all(isinstance(value, torch.Tensor) for value in inputs):
        types = ", ".join(type(value).__name__ for value in inputs) or "nothing"
        found = f"example_inputs must be a tuple of tensors, one for each input, got a tuple of {types}"
    else:
        return
    message = f'[models.{config.name}] loader "{config.loader}": {found}'
    raise ModelError(message, path=config.place.path, line=config.place.line)


def _open_split(
    split: str, config: SplitConfig, registry: Registry, loaded: LoadedModel, *, require_targets: bool
) -> Dataset:
    dataset: Any = registry.datasets.get(config.format)
    try:
        opened: Dataset = dataset.open(config.options, class_names=loaded.class_names, require_targets=require_targets)
    except QGateError as error:
        raise _placed(error, config.place, config.option_places) from error
    except Exception as error:
        raise DataError(
            f'the {split} data of format "{config.format}" cannot be opened: {brief(error)}',
            path=config.place.path,
            line=config.place.line,
        ) from error
    if not len(opened):
        raise DataError(f"the {split} data is empty", path=config.place.path, line=config.place.line)
    return opened


def _placed(error: QGateError, table: Place, options: Mapping[str, Place]) -> QGateError:
    """Let an error that names no file name the configuration's table, or the line of the key that it is about."""
    place = options.get(getattr(error, "key", None) or "", table)
    return error if error.path else type(error)(error.message, path=place.path, line=place.line)
