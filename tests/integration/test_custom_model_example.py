from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "custom-model"


@pytest.fixture
def example(tmp_path: Path) -> Path:
    """A copy inside of a project with a gate of its own, as in a clone."""
    (tmp_path / "pyproject.toml").write_text("[tool.pytest.ini_options]\n")
    (tmp_path / "qgate.toml").write_text("this is not the file to take")
    copy = tmp_path / "examples" / "custom-model"
    return Path(shutil.copytree(EXAMPLE, copy, ignore=shutil.ignore_patterns(".qgate", "__pycache__")))


@pytest.mark.parametrize("command", [("pytest", "--qgate", "-p", "no:cacheprovider"), ("qgate", "check")])
def test_the_example_passes_by_either_way(example: Path, command: tuple[str, ...]) -> None:
    finished = subprocess.run(
        [sys.executable, "-m", *command], cwd=example, check=False, capture_output=True, text=True
    )

    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert re.search(r"accuracy max_drop .* passed", finished.stdout)
    assert (example / ".qgate" / "artifacts" / "classifier.pt").is_file()


def test_it_passes_where_warnings_are_errors_and_no_kernel_is_asked_for_its_range(example: Path) -> None:
    config = example / "qgate.toml"
    config.write_text(config.read_text().replace("outliers = 0.001", "reduce_range = true"))

    command = [sys.executable, "-W", "error", "-m", "qgate", "check"]
    finished = subprocess.run(command, cwd=example, check=False, capture_output=True, text=True)

    assert finished.returncode == 0, finished.stdout + finished.stderr


def test_a_limit_out_of_reach_fails_it(example: Path) -> None:
    config = example / "qgate.toml"
    config.write_text(config.read_text().replace("lower_bound = 0.95", "lower_bound = 1.01"))

    command = [sys.executable, "-m", "qgate", "check"]
    finished = subprocess.run(command, cwd=example, check=False, capture_output=True, text=True)

    assert finished.returncode == 1
    assert re.search(r"accuracy lower_bound .* failed", finished.stdout)


def test_an_option_that_the_observer_refuses(example: Path) -> None:
    config = example / "qgate.toml"
    config.write_text(config.read_text().replace("outliers = 0.001", "outliers = 0.6"))

    command = [sys.executable, "-m", "qgate", "check"]
    finished = subprocess.run(command, cwd=example, check=False, capture_output=True, text=True)

    assert finished.returncode == 4
    assert re.fullmatch(
        r'qgate: error: qgate.toml:\d+: .*activation observer "clipped" refuses options: outliers must be .*0\.6\n',
        finished.stderr,
    )


def test_the_document_shows_the_example_as_it_is() -> None:
    document = (ROOT / "docs" / "custom-models.md").read_text()
    walk_through = document.partition("## When FX cannot trace it")[0]
    blocks = re.findall(r"```(?:python|toml)\n(.*?)```", walk_through, flags=re.DOTALL)
    files = "\n".join(path.read_text() for path in sorted(EXAMPLE.iterdir()) if path.suffix in {".py", ".toml"})

    assert len(blocks) >= 4
    for block in blocks:
        assert block.strip() in files, f"not in the example any more:\n{block}"
