"""The toy project, judged once; and runs of `qgate` in it."""

from __future__ import annotations

import shutil
import sys
from typing import TYPE_CHECKING

import pytest
from command_line import Outcome, as_process, in_process
from toy_project import HELD, SPEED, Folder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture(scope="session")
def checked(tmp_path_factory: pytest.TempPathFactory) -> tuple[Folder, Outcome]:
    """The project after one `qgate check` in a process of its own, and what that printed. Not to be written to."""
    folder = Folder(tmp_path_factory.mktemp("checked"))
    folder.configure(HELD, SPEED)
    return folder, as_process(folder.root, "check")


@pytest.fixture
def project(checked: tuple[Folder, Outcome], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Folder]:
    """The same as the working folder, for this test alone: judged already."""
    shutil.copytree(checked[0].root, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    folder = Folder(tmp_path, written=True)
    path = sys.path.copy()
    yield folder
    sys.path[:] = path
    sys.modules.pop("toy", None)


@pytest.fixture
def qgate(capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """Run `qgate` in this process."""
    return in_process(capsys)
