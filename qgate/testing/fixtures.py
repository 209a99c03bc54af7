"""Fixtures for tests of plugins: `pytest_plugins = ["qgate.testing.fixtures"]` in a test module or `conftest.py`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from qgate.testing.networks import Network
    from qgate.testing.project import Project
    from qgate.testing.runner import Outcome


@pytest.fixture
def qgate_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    """Make a project with a toy model, whose gate takes a second, the working folder; installed plugins are there."""
    from qgate.testing.project import Project

    monkeypatch.chdir(tmp_path)
    path = sys.path.copy()
    yield Project(tmp_path)
    sys.path[:] = path
    sys.modules.pop("toy", None)


@pytest.fixture
def qgate_run(capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """Run `qgate` in this process: `qgate_run("check")` gives exit code, output and error."""
    from qgate.testing.runner import in_process

    return in_process(capsys)


@pytest.fixture(scope="session")
def qgate_networks() -> Mapping[str, Network]:
    """Give tiny networks by name: how to make each, with the same weights every time, and what it takes."""
    from qgate.testing.networks import LAYERS, NETWORKS

    return {**LAYERS, **NETWORKS}
