"""Every plugin that is registered passes the suite of its kind."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import pytest
from conformance_table import DATASETS, LOADERS, METRICS, STREAMING

from qgate.plugins import load_registry
from qgate.testing import (
    BackendConformance,
    CalibratorConformance,
    DatasetConformance,
    LoaderConformance,
    MetricConformance,
    ObserverConformance,
    ReporterConformance,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

REGISTRY = load_registry()


def line(table: dict[str, Any], request: pytest.FixtureRequest) -> Any:
    """Give a plugin's line of the table; it fails where there is none, so that no new plugin goes unnoticed."""
    if request.param not in table:
        pytest.fail(f'"{request.param}" of `{type(request.instance).__name__}` needs a line in conformance_table.py')
    return table[request.param]


class TestMetric(MetricConformance):
    @pytest.fixture(autouse=True, params=sorted(REGISTRY.metrics))
    def _of_the_registry(self, request: pytest.FixtureRequest) -> None:
        self.metric = REGISTRY.metrics.get(request.param)
        self.class_names, self.samples = line(METRICS, request)  # type: ignore[method-assign]  # this one's


class TestObserver(ObserverConformance):
    @pytest.fixture(autouse=True, params=sorted(REGISTRY.observers))
    def _of_the_registry(self, request: pytest.FixtureRequest) -> None:
        self.observer = REGISTRY.observers.get(request.param)
        self.streaming_tolerance = STREAMING.get(request.param, 0.0)  # type: ignore[misc]  # this one's


class TestCalibrator(CalibratorConformance):
    @pytest.fixture(autouse=True, params=sorted(REGISTRY.calibrators))
    def _of_the_registry(self, request: pytest.FixtureRequest) -> None:
        self.calibrator = REGISTRY.calibrators.get(request.param)


class TestBackend(BackendConformance):
    @pytest.fixture(autouse=True, params=sorted(REGISTRY.backends))
    def _of_the_registry(self, request: pytest.FixtureRequest) -> None:
        self.backend = REGISTRY.backends.get(request.param)


@pytest.fixture
def path() -> Iterator[None]:
    """Put `sys.path` back, and forget `toy.py`."""
    before = sys.path.copy()
    yield
    sys.path[:] = before
    sys.modules.pop("toy", None)


@pytest.mark.usefixtures("path")
class TestLoader(LoaderConformance):
    @pytest.fixture(autouse=True, params=sorted(REGISTRY.loaders))
    def _of_the_registry(self, request: pytest.FixtureRequest) -> None:
        self.loader = REGISTRY.loaders.get(request.param)
        self.options, self.inputs = line(LOADERS, request)  # type: ignore[method-assign]  # this one's


@pytest.mark.usefixtures("path")
class TestDataset(DatasetConformance):
    @pytest.fixture(autouse=True, params=sorted(REGISTRY.datasets))
    def _of_the_registry(self, request: pytest.FixtureRequest) -> None:
        self.dataset = REGISTRY.datasets.get(request.param)
        self.class_names, self.options = line(DATASETS, request)  # type: ignore[method-assign]  # this one's


class TestReporter(ReporterConformance):
    @pytest.fixture(autouse=True, params=sorted(REGISTRY.reporters))
    def _of_the_registry(self, request: pytest.FixtureRequest) -> None:
        self.reporter = REGISTRY.reporters.get(request.param)
