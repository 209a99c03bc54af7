"""The `[models.X.quantization]` table."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from qgate.config.binder import Key, bind_key, bind_keys, bind_table, expect_table, options_of
from qgate.config.model import FallbackConfig, ObserverConfig, QuantizationConfig, TrainingConfig
from qgate.errors import PluginError

if TYPE_CHECKING:
    from qgate.config.document import Cursor
    from qgate.config.model import Place
    from qgate.plugins import Kind, Registry

T = TypeVar("T")

REDUCE_RANGE = Key("reduce_range", bool | Literal["auto"], QuantizationConfig.reduce_range)
ACTIVATION_KEYS = ("observer", "reduce_range")
WEIGHT_KEYS = ("observer",)


def choose(table: Cursor, key: str, name: str, kind: Kind[T]) -> type[T]:
    """Give what is registered under `name`. Raises `ConfigError` at the key, with the valid names."""
    try:
        return kind.get(name)
    except PluginError as error:
        raise table.error(error.message, key) from None


def bind_recipe(table: Cursor) -> QuantizationConfig:
    """Read the table; the names in it, and observers' options, are not checked yet. Raises `ConfigError`."""
    activation, weight = (expect_table(expect_table(table).table(role)) for role in ("activation", "weight"))
    recipe = bind_table(
        table,
        QuantizationConfig,
        others=("activation", "weight", "training"),
        place=table.place,
        activation=_bind_observer(activation, QuantizationConfig.activation, ACTIVATION_KEYS),
        weight=_bind_observer(weight, QuantizationConfig.weight, WEIGHT_KEYS),
        reduce_range=bind_key(activation, REDUCE_RANGE),
        training=_bind_training(table.table("training")),
    )
    if recipe.approach == "qat":
        _check_trained(table, recipe)
    return recipe


def _bind_training(table: Cursor) -> TrainingConfig:
    return bind_table(expect_table(table), TrainingConfig, others=("augment",), augment=None, place=table.place)


def _check_trained(table: Cursor, recipe: QuantizationConfig) -> None:
    """Refuse what a trained graph has no use for: it leaves behind the integers that were chosen for float32's."""
    for key in ("weight_rounding", "fallback"):
        if getattr(recipe, key) != getattr(QuantizationConfig, key):
            raise table.error(f'{key} is for approach = "ptq": training does its work; remove it', key)


def bind_augmentation(table: Cursor, loader: type[Any], training: TrainingConfig) -> TrainingConfig:
    """Make a loader's `Augmentation` of the table `augment`, of its defaults where there is none.

    Raises `ConfigError` where there is one and the loader has no use for it.
    """
    options = getattr(loader, "Augmentation", None)
    if options is not None:
        return replace(training, augment=bind_table(table.table("augment"), options))
    if "augment" in table.value:
        raise table.error(f'loader "{loader.name}" has no options for "augment"', "augment")
    return training


def check_recipe(table: Cursor, recipe: QuantizationConfig, registry: Registry) -> QuantizationConfig:
    """Check the names of a recipe, and give it with observers' options converted. Raises `ConfigError`."""
    choose(table, "calibrator", recipe.calibrator, registry.calibrators)
    choose(table, "backend", recipe.backend, registry.backends)
    activation = _checked_observer(table.table("activation"), recipe.activation, ACTIVATION_KEYS, registry)
    weight = _checked_observer(table.table("weight"), recipe.weight, WEIGHT_KEYS, registry)
    return replace(recipe, activation=activation, weight=weight)


def plain_recipe(recipe: QuantizationConfig) -> dict[str, Any]:
    """Give a recipe as plain values, for another process; without its training, which no other process does."""
    return {name: value for name, value in asdict(recipe).items() if name not in {"place", "training"}}


def recipe_of(plain: dict[str, Any], place: Place) -> QuantizationConfig:
    """Give the recipe that `plain_recipe` was given."""
    tables = {"activation": ObserverConfig, "weight": ObserverConfig, "fallback": FallbackConfig}
    return QuantizationConfig(place, **{**plain, **{name: kind(**plain[name]) for name, kind in tables.items()}})


def _bind_observer(table: Cursor, default: ObserverConfig, core_keys: tuple[str, ...]) -> ObserverConfig:
    observer = bind_key(table, Key("observer", str, default.observer))
    return ObserverConfig(observer, {key: value for key, value in table.value.items() if key not in core_keys})


def _checked_observer(
    table: Cursor, config: ObserverConfig, core_keys: tuple[str, ...], registry: Registry
) -> ObserverConfig:
    observer = choose(table, "observer", config.observer, registry.observers)
    role = table.keys[-1]
    if observer.role != role:
        raise table.error(f'observer "{config.observer}" is for {observer.role}s, not for {role}s', "observer")
    keys = options_of(observer, _base_of(observer))
    options = bind_keys(table, keys, core_keys)
    return ObserverConfig(config.observer, {key: options[key] for key in config.options})


def _base_of(observer: type[Any]) -> type:
    """Give the class above which constructor parameters are the engine's, not the user's."""
    from qgate.quantization.observers import ActivationObserver, WeightObserver

    for base in (ActivationObserver, WeightObserver):
        if issubclass(observer, base):
            return base
    raise PluginError(
        f"{observer.__module__}.{observer.__qualname__} must subclass ActivationObserver or WeightObserver"
    )
