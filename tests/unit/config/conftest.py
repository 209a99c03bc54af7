"""Plugins to bind against: their classes carry only what the reader looks at."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Literal

import pluggy
import pytest

from qgate import hookimpl, hookspecs
from qgate.plugins import Registry

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True)
class Crop:
    top: int = 0
    left: int = 0


@dataclass(frozen=True)
class NetOptions:
    weights: Path
    image_size: int = field(default=640, metadata={"minimum": 1})
    half: bool = False
    gain: float = 1.0
    mode: Literal["fast", "exact"] = "fast"
    stride: int | Literal["auto"] = field(default="auto", metadata={"minimum": 8})
    scales: tuple[float, ...] = ()
    size: tuple[int, int] = (1, 1)
    crop: Crop = Crop()
    cache: Path = Path("cache")
    extra: dict[str, Any] = field(default_factory=dict)
    note: str | None = None

    def __post_init__(self) -> None:
        if self.image_size % 32:
            raise ValueError(f"image_size must be a multiple of 32, got {self.image_size}")


@dataclass(frozen=True)
class TextOptions:
    path: Path
    split: str = "val"


@dataclass(frozen=True)
class PairOptions:
    images: Path
    annotations: Path


def _observers() -> list[type[Any]]:
    from qgate.quantization.observers import HistogramObserver, MinMaxObserver, PerChannelMinMaxObserver

    class Percentile(MinMaxObserver):
        name = "percentile"

        def __init__(self, *, percentile: float, table: Path | None = None, **spec: int) -> None:
            super().__init__(**spec)

    class Symmetric(Percentile):
        name = "symmetric"

        def __init__(self, *, margin: float = 0.0, **spec: Any) -> None:
            super().__init__(**spec)

    class Most(Percentile):
        name = "most"

        def __init__(self) -> None:
            super().__init__(percentile=99.9)

    return [HistogramObserver, MinMaxObserver, PerChannelMinMaxObserver, Percentile, Symmetric, Most]


class Plugin:
    """One of each kind."""

    def __init__(self) -> None:
        self.asked_for_observers = False

    @hookimpl
    def qgate_register_loaders(self) -> list[Any]:
        return [SimpleNamespace(name="net", Options=NetOptions)]

    @hookimpl
    def qgate_register_datasets(self) -> list[Any]:
        return [SimpleNamespace(name="text", Options=TextOptions), SimpleNamespace(name="pair", Options=PairOptions)]

    @hookimpl
    def qgate_register_metrics(self) -> list[Any]:
        return [
            SimpleNamespace(name="map", higher_is_better=True),
            SimpleNamespace(name="error_rate", higher_is_better=False),
        ]

    @hookimpl
    def qgate_register_observers(self) -> list[type[Any]]:
        self.asked_for_observers = True
        return _observers()

    @hookimpl
    def qgate_register_calibrators(self) -> list[Any]:
        return [SimpleNamespace(name="random"), SimpleNamespace(name="first")]

    @hookimpl
    def qgate_register_backends(self) -> list[Any]:
        return [SimpleNamespace(name="fbgemm"), SimpleNamespace(name="onednn")]


@pytest.fixture
def plugin() -> Plugin:
    return Plugin()


@pytest.fixture
def registry(plugin: Plugin) -> Registry:
    manager = pluggy.PluginManager("qgate")
    manager.add_hookspecs(hookspecs)
    manager.register(plugin, "test")
    return Registry(manager)


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Write a `qgate.toml` into the working folder."""
    monkeypatch.chdir(tmp_path)

    def write_file(text: str) -> Path:
        (tmp_path / "qgate.toml").write_text(text, encoding="utf-8")
        return Path("qgate.toml")

    return write_file
