"""What `qgate.toml` says, as frozen values: paths absolute, plugin options bound to the plugin's own `Options`.

The fields' names, types, defaults and bounds are the file's: the reader and the JSON schema are derived from them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

SCHEMA_VERSION = 1

# What the core measures itself, for any model.
CORE_METRICS = ("size_reduction", "speedup")

WeightRounding = Literal["nearest", "gptq"]
TrainingLoss = Literal["distillation", "supervised"]
BaselineForm = Literal["eager", "channels_last", "frozen", "fastest"]


@dataclass(frozen=True)
class Place:
    """Where in `qgate.toml` something is said."""

    path: Path
    line: int | None


@dataclass(frozen=True)
class ExecutorConfig:
    """The `[qgate.executor]` table: who works on samples; `options` is the executor's `Options`.

    "local" is no plugin: this process does all by itself.
    """

    name: str = "local"
    options: Any = None


@dataclass(frozen=True)
class Settings:
    """The `[qgate]` table; with `cache_bytes = 0` nothing is cached."""

    plugins: tuple[str, ...] = ()
    results: Path = Path(".qgate/results.json")
    artifacts: Path = Path(".qgate/artifacts")
    blessed: Path = Path("qgate-blessed.json")
    cache: Path = Path(".qgate/cache")
    cache_bytes: int = field(default=2**30, metadata={"minimum": 0})
    seed: int = field(default=0, metadata={"minimum": 0})
    num_threads: int = field(default=1, metadata={"minimum": 1})
    confidence: float = field(default=0.95, metadata={"exclusiveMinimum": 0, "maximum": 0.99})
    on_inconclusive: Literal["fail", "warn"] = "fail"
    executor: ExecutorConfig = ExecutorConfig()

    @property
    def details(self) -> Path:
        """Give the folder of what reports show beyond results: it is beside them."""
        return self.results.parent / "details"


@dataclass(frozen=True)
class SplitConfig:
    """One split of `[models.X.data]`: a data set format and the options that it takes.

    `num_samples` is given for calibration only; `option_places` says where each of its keys stands.
    """

    format: str
    options: Any
    place: Place
    num_samples: int | None = None
    option_places: dict[str, Place] = field(default_factory=dict)


@dataclass(frozen=True)
class DataConfig:
    """The `[models.X.data]` table.

    `max_overlap` is the share of calibration samples that may be evaluation samples too, by content.
    """

    calibration: SplitConfig
    evaluation: SplitConfig
    train: SplitConfig | None = None
    max_overlap: float = 1.0


@dataclass(frozen=True)
class ObserverConfig:
    """An observer and its own options."""

    observer: str
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class FallbackConfig:
    """The `[models.X.quantization.fallback]` table: how many layers may be kept float for accuracy's sake."""

    max_layers: int = field(default=0, metadata={"minimum": 0})


@dataclass(frozen=True)
class TrainingConfig:
    """The `[models.X.quantization.training]` table, for `approach = "qat"`.

    The learning rate is relative: at 0.001, a step moves a weight by up to a thousandth of its channel's greatest. It
    rises over `warmup_epochs` and falls to zero by a cosine. Scales of activations are learned in the first
    `observer_epochs`. `feature_maps` are patterns of module names; `augment` is what the loader makes of the table of
    that name.
    """

    epochs: int = field(default=8, metadata={"minimum": 1})
    batch_size: int = field(default=8, metadata={"minimum": 1})
    loss: TrainingLoss = "distillation"
    feature_maps: tuple[str, ...] = ()
    optimizer: Literal["adamw", "sgd"] = "adamw"
    learning_rate: float = field(default=0.0001, metadata={"exclusiveMinimum": 0})
    weight_decay: float = field(default=0.0, metadata={"minimum": 0})
    warmup_epochs: float = field(default=1.0, metadata={"minimum": 0})
    gradient_clipping: float = field(default=1.0, metadata={"exclusiveMinimum": 0})
    ema_decay: float = field(default=0.95, metadata={"minimum": 0, "exclusiveMaximum": 1})
    observer_epochs: int = field(default=4, metadata={"minimum": 0})
    validation_share: float = field(default=0.2, metadata={"exclusiveMinimum": 0, "maximum": 0.5})
    device: Literal["auto", "cpu", "cuda"] = "auto"
    augment: Any = None
    place: Place | None = None


@dataclass(frozen=True)
class QuantizationConfig:
    """The `[models.X.quantization]` table.

    `reduce_range` is said in the file as `activation = { ..., reduce_range = "auto" }`; patterns are shell-style
    (`model.24.*`) and match names of modules.
    """

    place: Place
    approach: Literal["ptq", "qat"] = "ptq"
    backend: str = "fbgemm"
    calibrator: str = "random"
    activation: ObserverConfig = ObserverConfig("histogram")
    weight: ObserverConfig = ObserverConfig("per_channel_minmax")
    reduce_range: bool | Literal["auto"] = "auto"
    equalization: bool = False
    weight_rounding: WeightRounding = "nearest"
    rounding_seconds: float = field(default=600.0, metadata={"exclusiveMinimum": 0})
    bias_correction: bool = True
    ignored_scope: tuple[str, ...] = ()
    non_traceable: tuple[str, ...] = ()
    fallback: FallbackConfig = FallbackConfig()
    training: TrainingConfig = TrainingConfig()


@dataclass(frozen=True)
class TimingConfig:
    """The `[models.X.timing]` table; `max_seconds` bounds the measuring of one model."""

    warmup_rounds: int = field(default=5, metadata={"minimum": 0})
    max_seconds: float = field(default=60.0, metadata={"exclusiveMinimum": 0})
    baseline_form: BaselineForm = "fastest"


@dataclass(frozen=True)
class ThresholdConfig:
    """The `[models.X.thresholds.METRIC]` table, or one of its `[[...slices]]`, which then has a `where`.

    `limits` maps `max_drop`, `lower_bound`, ... to their values, in file order. A slice that rests on fewer than
    `min_samples` targets (as `Metric.support` counts them) is not judged.
    """

    metric: str
    limits: dict[str, float]
    place: Place
    drop_type: Literal["absolute", "relative"] = "absolute"
    limit_places: dict[str, Place] = field(default_factory=dict)
    where: dict[str, str] | None = None
    min_samples: int = 10
    slices: tuple[ThresholdConfig, ...] = ()


@dataclass(frozen=True)
class ModelConfig:
    """One `[models.X]` table; `options` is the loader's `Options`, `option_places` says where each key stands."""

    name: str
    loader: str
    options: Any
    data: DataConfig
    quantization: QuantizationConfig
    timing: TimingConfig
    thresholds: dict[str, ThresholdConfig]
    place: Place
    option_places: dict[str, Place] = field(default_factory=dict)

    @property
    def limit_tables(self) -> tuple[ThresholdConfig, ...]:
        """Give the table of each metric, each followed by those of its slices."""
        return tuple(table for metric in self.thresholds.values() for table in (metric, *metric.slices))


@dataclass(frozen=True)
class GateConfig:
    """A whole `qgate.toml`. `sha256` is of the file's bytes, `text` is what they say."""

    path: Path
    sha256: str
    qgate: Settings
    models: dict[str, ModelConfig]
    text: str = ""
