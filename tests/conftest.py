"""What tests share."""

import os
from pathlib import Path

import pytest

pytest_plugins = ["pytester"]


@pytest.fixture(scope="session")
def assets() -> Path:
    """The folder of real models and images; without it a test is skipped, and in CI it fails."""
    folder = Path(os.environ.get("QGATE_ASSETS", Path(__file__).parents[2] / "shared" / "assets"))
    if not folder.is_dir():
        message = f"{folder} is missing; set QGATE_ASSETS to the folder of real models and images"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    return folder
