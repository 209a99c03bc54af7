"""Models and data from the user's own functions: `"package.module:function"`."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch

from qgate.engine.digest import digest
from qgate.errors import ConfigError, DataError, ModelError
from qgate.protocols import LoadedModel, Sample

if TYPE_CHECKING:
    from collections.abc import Sequence

    from typing_extensions import Self

__all__ = ["FactoryDataset", "FactoryLoader"]

_PAIR = 2


@dataclass(frozen=True)
class FactoryOptions:
    """Where the function is, `package.module:function`, importable from the folder of `qgate.toml`."""

    factory: str


class FactoryLoader:
    """Loads what a function returns: a `LoadedModel`, or a module and its example input (a tensor, or a tuple)."""

    name: ClassVar[str] = "factory"
    Options: ClassVar[type] = FactoryOptions

    def load(self, options: FactoryOptions) -> LoadedModel:
        """Call the function. Raises `ConfigError` where it is not found, `ModelError` where it returns no model."""
        made = _call(options.factory)
        if isinstance(made, LoadedModel):
            return made
        if isinstance(made, tuple) and len(made) == _PAIR and isinstance(made[0], torch.nn.Module):
            module, example = made
            return LoadedModel(module.eval(), example if isinstance(example, tuple) else (example,))
        raise ModelError(
            f'factory "{options.factory}" returned {type(made).__name__}; expected qgate.LoadedModel, or a pair of '
            "torch.nn.Module and its example input"
        )


class FactoryDataset:
    """The samples that a function returns: a sequence of `Sample`, or of (input, target) pairs.

    The sequence may read lazily in `__getitem__`. A pair's id is its index.
    """

    name: ClassVar[str] = "factory"
    Options: ClassVar[type] = FactoryOptions

    def __init__(self, items: Sequence[Any], factory: str) -> None:
        self._items = items
        self._factory = factory

    @classmethod
    def open(cls, options: FactoryOptions, *, class_names: Sequence[str], require_targets: bool) -> Self:  # noqa: ARG003
        """Call the function. Raises `ConfigError` where it cannot be found, `DataError` where it gives no sequence."""
        made = _call(options.factory)
        if not (hasattr(made, "__len__") and hasattr(made, "__getitem__")):
            raise DataError(
                f'factory "{options.factory}" returned {type(made).__name__}; expected a sequence of qgate.Sample '
                "or of (input, target) pairs"
            )
        return cls(made, options.factory)

    def __len__(self) -> int:
        return len(self._items)

    def sample(self, index: int) -> Sample:
        """Give one sample. Raises `DataError` where the function's sequence holds something else."""
        item = self._items[index]
        if isinstance(item, Sample):
            return item
        if isinstance(item, tuple | list) and len(item) == _PAIR:
            return Sample(str(index), item[0], item[1])
        raise DataError(
            f'item {index} of factory "{self._factory}" is {type(item).__name__}; expected qgate.Sample or an '
            "(input, target) pair"
        )

    def sample_id(self, index: int) -> str:
        """Give the sample's id."""
        return self.sample(index).id

    def strata(self, index: int) -> frozenset[str]:
        """Give the target itself where it is a class: an integer or a string."""
        target = self.sample(index).target
        if isinstance(target, torch.Tensor | np.generic | np.ndarray) and np.ndim(target) == 0:
            target = target.item()
        return frozenset({str(target)}) if isinstance(target, int | str) else frozenset()

    def fingerprint(self, index: int) -> str:
        """Hash the sample's input."""
        return digest(self.sample(index).input)


def _call(path: str) -> Any:
    module_name, colon, name = path.partition(":")
    if not (colon and module_name and name):
        raise ConfigError(f'factory "{path}" must be "package.module:function"', key="factory")
    try:
        function = getattr(import_module(module_name), name)
    except ModuleNotFoundError as error:
        missing = f'factory "{path}": {error}; is it in the folder of qgate.toml or installed?'
        raise ConfigError(missing, key="factory") from error
    except AttributeError as error:
        raise ConfigError(f'factory "{path}": {error}', key="factory") from error
    return function()
