from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import qgate
import qgate.testing

if TYPE_CHECKING:
    from types import ModuleType

HEAVY = ("torch", "numpy", "rich", "pycocotools", "cv2", "yaml")
ROOT = Path(__file__).parents[2]


def imported(statement: str) -> set[str]:
    """Give those heavy packages that a statement imports in a fresh interpreter."""
    script = f"import sys; {statement}; print(*set({HEAVY!r}) & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(done.stdout.split())


LEAN = ["qgate", "qgate.hookspecs", "qgate.protocols", "qgate.errors", "qgate.results", "qgate.pytest_plugin"]


@pytest.mark.parametrize("module", [*LEAN, "qgate.cli", "qgate.testing", "qgate.testing.fixtures"])
def test_it_imports_nothing_heavy(module: str) -> None:
    assert imported(f"import {module}") == set()


def test_a_name_that_needs_torch_loads_it_when_it_is_used() -> None:
    assert "torch" in imported("from qgate import load_artifact")
    assert imported("from qgate import Sample, LoadedModel") == set()


def test_the_suite_of_metrics_needs_no_torch() -> None:
    assert imported("from qgate.testing import MetricConformance") == {"numpy"}


@pytest.mark.parametrize("module", [qgate, qgate.testing])
def test_every_public_name_is_there(module: ModuleType) -> None:
    assert all(getattr(module, name) is not None for name in module.__all__)


def test_another_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'qgate' has no attribute 'load_artefact'"):
        _ = qgate.load_artefact
