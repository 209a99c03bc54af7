"""The files that users copy: the hook for pre-commit and the workflow for GitHub."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from command_line import as_process
from toy_project import MISSED, Folder

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def hook() -> Any:
    (found,) = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text(encoding="utf-8"))
    return found


@pytest.fixture(scope="module")
def steps() -> Any:
    workflow = yaml.safe_load((ROOT / "examples/github-workflow.yml").read_text(encoding="utf-8"))
    return workflow["jobs"]["int8"]["steps"]


def test_the_hooks_entry_lets_a_model_that_holds_pass_and_stops_one_that_does_not(hook: Any, tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    program, *arguments = shlex.split(hook["entry"])
    assert program == "qgate"

    assert as_process(folder.root, *arguments).code == 0
    folder.configure(MISSED)
    assert as_process(folder.root, *arguments).code == 1


@pytest.mark.parametrize(
    ("path", "runs"),
    [
        ("qgate.toml", True),
        ("gates/qgate-onednn.toml", True),
        ("qgate-blessed.json", True),
        ("weights/yolov5n.pt", True),
        ("best.pth", True),
        ("pyproject.toml", False),
        ("src/model.py", False),
    ],
)
def test_the_hook_runs_where_limits_or_weights_change(hook: Any, path: str, runs: bool) -> None:
    assert bool(re.search(hook["files"], path)) is runs


def test_the_workflow_installs_and_runs_what_there_is(steps: Any, tmp_path: Path) -> None:
    (install,) = [step["run"] for step in steps if step.get("run", "").startswith("pip install")]
    (gate,) = [step["run"] for step in steps if step.get("run", "").startswith("pytest")]
    source = next(step["with"]["path"] for step in steps if "repository" in step.get("with", {}))
    assert shlex.split(install) == ["pip", "install", "--constraint", f"{source}/constraints.txt", f"./{source}"]
    assert (ROOT / "constraints.txt").is_file()
    folder = Folder(tmp_path)

    command = [sys.executable, "-m", *shlex.split(gate)]
    done = subprocess.run(command, cwd=folder.root, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout
    uploaded = next(step["with"]["path"] for step in steps if "upload-artifact" in step.get("uses", ""))
    assert all((tmp_path / name).is_file() for name in uploaded.split())
