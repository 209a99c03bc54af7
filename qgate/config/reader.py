"""A document and the registered plugins -> `GateConfig`."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from qgate.config.binder import Key, bind_key, bind_table, expect_table
from qgate.config.document import parse
from qgate.config.model import (
    SCHEMA_VERSION,
    DataConfig,
    ExecutorConfig,
    GateConfig,
    ModelConfig,
    QuantizationConfig,
    Settings,
    SplitConfig,
    TimingConfig,
)
from qgate.config.recipe import bind_augmentation, bind_recipe, check_recipe, choose
from qgate.config.thresholds import bind_thresholds

if TYPE_CHECKING:
    from pathlib import Path

    from qgate.config.document import Cursor, Document
    from qgate.config.model import Place
    from qgate.plugins import Registry
    from qgate.protocols import Loader

MODEL_NAME = r"\w[\w.+-]*"  # part of test names and of file names
MODEL_KEYS = ("loader", "data", "quantization", "timing", "thresholds")
FILES = frozenset({"results", "blessed"})  # keys of [qgate] that name a file to write
SPLITS = ("calibration", "evaluation", "train")
MAX_OVERLAP = Key("max_overlap", float, DataConfig.max_overlap, {"minimum": 0, "maximum": 1})
NUM_SAMPLES = Key("num_samples", int, 64, {"minimum": 1})


def read_config(path: Path, registry: Registry) -> GateConfig:
    """Read and check a `qgate.toml`. Raises `ConfigError` with file and line."""
    return bind(parse(path), registry)


def plugin_modules(document: Document) -> tuple[str, ...]:
    """Give `[qgate] plugins`, which must be loaded before the rest can be bound. Raises `ConfigError`."""
    _check_version(document.root)
    return bind_settings(document).plugins


def bind_settings(document: Document, executor: ExecutorConfig = Settings.executor) -> Settings:
    """Give the `[qgate]` table; `executor` is what its table of that name says. Raises `ConfigError`."""
    table = document.root.table("qgate")
    settings = bind_table(table, Settings, others=("executor",), executor=executor)
    for key in FILES & table.value.keys():
        if getattr(settings, key).is_dir():
            raise table.child(key).value_error(f'"{table.value[key]}" is a folder; name a file in it')
    return settings


def bind(document: Document, registry: Registry) -> GateConfig:
    """Bind a document's values to types, plugin options to the plugins'. Raises `ConfigError` with file and line."""
    root = document.root
    _check_version(root)
    root.only(("schema_version", "qgate", "models"))
    settings = bind_settings(document, _bind_executor(root.table("qgate"), registry))
    tables = _model_tables(root)
    models = [_bind_model(name, table, registry) for name, table in tables.items()]
    # Only now: asking for observers and backends imports torch, and the mistakes above should show at once.
    models = [_with_checked_recipe(model, tables[model.name], registry) for model in models]
    return GateConfig(document.path, document.sha256, settings, {model.name: model for model in models}, document.text)


def _check_version(root: Cursor) -> None:
    if "schema_version" not in root.value:
        raise root.error(f"lacks schema_version; add `schema_version = {SCHEMA_VERSION}` as the first line")
    version = bind_key(root, Key("schema_version", int))
    if version != SCHEMA_VERSION:
        raise root.error(f"schema_version: this qgate reads {SCHEMA_VERSION}, got {version}", "schema_version")


def _bind_executor(settings: Cursor, registry: Registry) -> ExecutorConfig:
    table = expect_table(expect_table(settings).table("executor"))
    name = bind_key(table, Key("name", str, ExecutorConfig.name))
    if name == ExecutorConfig.name:
        table.only(("name",))
        return ExecutorConfig()
    options: Any = bind_table(table, choose(table, "name", name, registry.executors).Options, others=("name",))
    return ExecutorConfig(name, options)


def _model_tables(root: Cursor) -> dict[str, Cursor]:
    tables = dict(expect_table(root.table("models")).children())
    if not tables:
        raise root.error("has no [models.NAME] table, so nothing would be judged; add one", "models")
    for name, table in tables.items():
        if not re.fullmatch(MODEL_NAME, name):
            raise table.error('a model\'s name becomes part of test names: use letters, digits, "_", "-", "+" and "."')
    return tables


def _bind_model(name: str, table: Cursor, registry: Registry) -> ModelConfig:
    loader = bind_key(expect_table(table), Key("loader", str))
    kind = choose(table, "loader", loader, registry.loaders)
    options: Any = bind_table(table, kind.Options, others=MODEL_KEYS)
    data = _bind_data(table, registry)
    return ModelConfig(
        name=name,
        loader=loader,
        options=options,
        data=data,
        quantization=_bind_quantization(table.table("quantization"), kind, data),
        timing=bind_table(table.table("timing"), TimingConfig),
        thresholds=bind_thresholds(table.table("thresholds"), registry.metrics),
        place=table.place,
        option_places=_places(table),
    )


def _bind_quantization(table: Cursor, loader: type[Loader], data: DataConfig) -> QuantizationConfig:
    recipe = bind_recipe(table)
    if recipe.approach == "qat" and data.train is None:
        raise table.error('approach = "qat" needs data to train on: add train = { ... } to [models.X.data]', "approach")
    return replace(recipe, training=bind_augmentation(table.table("training"), loader, recipe.training))


def _bind_data(model: Cursor, registry: Registry) -> DataConfig:
    if "data" not in model.value:
        raise model.error('lacks the table "data", which says what to calibrate and evaluate on')
    data = expect_table(model.table("data"))
    data.only(("format", MAX_OVERLAP.name, *SPLITS))
    for split in ("calibration", "evaluation"):
        if split not in data.value:
            raise data.error(f'lacks the key "{split}": a table')
    splits = {split: _bind_split(data, split, registry) for split in SPLITS if split in data.value}
    return DataConfig(**splits, max_overlap=bind_key(data, MAX_OVERLAP))


def _bind_split(data: Cursor, name: str, registry: Registry) -> SplitConfig:
    split = expect_table(data.table(name))
    owner = split if "format" in split.value else data
    chosen = bind_key(owner, Key("format", str))
    dataset = choose(owner, "format", chosen, registry.datasets)
    core_keys = ("format", "num_samples") if name == "calibration" else ("format",)
    options: Any = bind_table(split, dataset.Options, others=core_keys)
    num_samples = bind_key(split, NUM_SAMPLES) if name == "calibration" else None
    return SplitConfig(chosen, options, split.place, num_samples, _places(split))


def _places(table: Cursor) -> dict[str, Place]:
    return {key: value.place for key, value in table.children()}


def _with_checked_recipe(model: ModelConfig, table: Cursor, registry: Registry) -> ModelConfig:
    return replace(model, quantization=check_recipe(table.table("quantization"), model.quantization, registry))
