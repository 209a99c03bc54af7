"""`docs/plugin-authors.md` runs as written, and names every rule."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from faulty import KINDS

DOCS = Path(__file__).parents[2] / "docs"


def python_of(document: str) -> str:
    text = (DOCS / document).read_text(encoding="utf-8")
    return "\n\n".join(re.findall(r"^```python\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE))


def test_the_code_passes_as_written(tmp_path: Path) -> None:
    (tmp_path / "qgate_thermal.py").write_text(python_of("plugins.md"), encoding="utf-8")
    (tmp_path / "test_thermal.py").write_text(python_of("plugin-authors.md"), encoding="utf-8")

    command = [sys.executable, "-m", "pytest", "-W", "error", "-p", "no:cacheprovider", "--rootdir=."]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, check=False, capture_output=True, text=True)

    assert done.returncode == 0, done.stdout
    assert re.search(r"=+ \d\d passed, \d+ skipped in", done.stdout), done.stdout


@pytest.mark.parametrize("kind", KINDS)
def test_every_rule_is_named(kind: str) -> None:
    text = (DOCS / "plugin-authors.md").read_text(encoding="utf-8")
    suite = KINDS[kind].Suite
    rules = [
        getattr(suite, name).__doc__.partition("\n")[0].rstrip(".") for name in dir(suite) if name.startswith("test_")
    ]

    assert [rule for rule in rules if f"\n- {rule}\n" not in text] == []
