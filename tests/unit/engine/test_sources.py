"""Code as a hash: every file that a run may be made of, and nothing else."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING

import pytest

from qgate.engine.sources import code_sha256, installed_software

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from types import ModuleType

FILES = {
    "plug_x/__init__.py": "from plug_x import deep\n",
    "plug_x/deep.py": "def f():\n    import helper_x as h, other_x\n    return h\n",
    "plug_x/never_imported.py": "",
    "helper_x.py": "if True:\n\tfrom third_x.part import thing\nimport json\n",
    "other_x.py": "",
    "third_x/part.py": "thing = 1\n",
    "model_x.py": "import numpy\n",
    "apart_x.py": "",
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    for name, text in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for name in [name for name in sys.modules if name.partition(".")[0].endswith("_x")]:
        del sys.modules[name]


def hashed(others: tuple[str, ...] = ("model_x",)) -> str:
    plugin: ModuleType = import_module("plug_x") if "plug_x" not in sys.modules else sys.modules["plug_x"]
    return code_sha256([plugin], others)


@pytest.mark.parametrize("name", [name for name in FILES if name != "apart_x.py"])
def test_a_change_in_a_plugin_a_model_or_what_they_import_changes_the_hash(folder: Path, name: str) -> None:
    before = hashed()
    (folder / name).write_text(FILES[name] + "# changed\n", encoding="utf-8")

    assert hashed() != before


@pytest.mark.parametrize("name", ["plug_x/another.py", "third_x/another.py"])
def test_a_file_more_in_a_package_changes_the_hash(folder: Path, name: str) -> None:
    before = hashed()
    (folder / name).touch()

    assert hashed() != before


@pytest.mark.parametrize("name", ["apart_x.py", "plug_x/data.txt", "plug_x/deep.pyc", "another_x.py"])
def test_nothing_else_does(folder: Path, name: str) -> None:
    before = hashed()
    (folder / name).write_text("changed", encoding="utf-8")

    assert hashed() == before


def test_nothing_is_imported_for_it(folder: Path) -> None:  # the modules are there
    hashed()

    assert not {"helper_x", "third_x", "model_x"} & sys.modules.keys()


@pytest.mark.parametrize("name", ["torch.nn", "json", "sys", "__main__", "not_there_x"])
def test_what_is_installed_built_in_or_unknown_counts_nothing(folder: Path, name: str) -> None:
    assert hashed(("model_x", name)) == hashed()


def test_versions_of_what_is_installed_are_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib.metadata import version

    (tmp_path / "library-2.0.dist-info").mkdir()
    monkeypatch.syspath_prepend(tmp_path)

    assert {f"torch-{version('torch')}", "library-2.0"} <= set(installed_software())
