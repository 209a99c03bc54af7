"""The toy project as a fixture."""

from __future__ import annotations

import sys

import pytest
from toy_project import Folder, Project

from qgate.cli import main


@pytest.fixture(scope="session")
def _imported_torch(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Run one gate first: a run of pytest inside this process forgets what it imported, and torch cannot come twice."""
    root = tmp_path_factory.mktemp("first")
    Folder(root)
    assert main(["check", "--config", str(root / "qgate.toml")]) == 0
    del sys.modules["toy"]
    sys.path.remove(str(root))


@pytest.fixture(autouse=True)
def _outside_github(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the toy's verdicts out of what GitHub shows, where these tests run there."""
    monkeypatch.delenv("GITHUB_ACTIONS", raising=False)


@pytest.fixture
def project(pytester: pytest.Pytester, _imported_torch: None) -> Project:
    """Make the project in a folder of its own, which is the working folder."""
    return Project(pytester)
