"""A gate that is killed while it writes: each file is the old one, and the next run works."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from toy_project import HELD, PLUGIN, SPEED, Folder

from qgate import load_artifact
from qgate.blessed import load_blessed
from qgate.results import load_results

ROOT = Path(__file__).parents[2]
WRITTEN = (".qgate/artifacts/toy.pt", ".qgate/results.json", "qgate-blessed.json")

KILL_WHILE_WRITING = """

import os, pathlib, signal

fsync = os.fsync


def fsync_or_die(handle):
    if "." + os.environ.get("KILL_WHILE_WRITING", " ") in os.readlink(f"/proc/self/fd/{handle}"):
        os.killpg(0, signal.SIGKILL)
    fsync(handle)


os.fsync = fsync_or_die
"""


def start(folder: Path, *, killed_at: str = " ") -> subprocess.Popen[bytes]:
    environment = {**os.environ, "KILL_WHILE_WRITING": killed_at, "PYTHONPATH": f"{ROOT}:{ROOT / 'plugins'}"}
    environment.pop("CI", None)  # nothing is blessed there
    command = [sys.executable, "-m", "pytest", "--qgate", "--qgate-update-blessed"]
    with (folder / "output.txt").open("wb") as output:
        return subprocess.Popen(command, cwd=folder, env=environment, stdout=output, start_new_session=True)


def contents(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in WRITTEN}


@pytest.mark.skipif(sys.platform != "linux", reason="the test finds out by /proc what is being written")
def test_files_survive_a_kill_during_any_writing_and_the_next_run_works(tmp_path: Path) -> None:
    sound = tmp_path / "sound"
    sound.mkdir()
    project = Folder(sound)
    project.write("conftest.py", PLUGIN + KILL_WHILE_WRITING)
    project.configure(HELD, SPEED)  # a speed is never the same again, so each run has something to bless
    assert start(sound).wait(60) == 0, project.text("output.txt")
    before = contents(sound)

    folders = {name: tmp_path / Path(name).name for name in WRITTEN}
    for folder in folders.values():
        shutil.copytree(sound, folder)
    killed = {name: start(folder, killed_at=Path(name).name) for name, folder in folders.items()}
    assert {process.wait(120) for process in killed.values()} == {-signal.SIGKILL}

    for name, folder in folders.items():
        changed = [other for other in WRITTEN if (folder / other).read_bytes() != before[other]]
        assert changed == list(WRITTEN[: WRITTEN.index(name)])
        assert len(list(folder.rglob("*.tmp"))) == 1
        load_artifact(folder / WRITTEN[0])
        load_results(folder / WRITTEN[1])
        load_blessed(folder / WRITTEN[2])

    assert start(folders[WRITTEN[0]]).wait(60) == 0
    assert not before.items() & contents(folders[WRITTEN[0]]).items()
