"""`qgate plugins new`: what it writes installs, is found, and passes its own tests; what is there already stays."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING
from xml.etree import ElementTree

import pytest
from command_line import Outcome, in_process

from qgate.cli import main
from qgate.scaffold import KINDS

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Qgate = Callable[..., Outcome]


@dataclass
class Written:
    """A folder with a package of each kind, the folder that all are installed in, and each one's tests that failed."""

    folder: Path
    site: Path
    failed: dict[str, list[str]]
    passed: dict[str, list[str]]

    def run(self, *command: str) -> str:
        """Run Python with the installed packages."""
        environment = {**os.environ, "PYTHONPATH": str(self.site)}
        done = subprocess.run(
            [sys.executable, *command], cwd=self.folder, env=environment, check=False, capture_output=True, text=True
        )
        return done.stdout


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> Written:
    folder = tmp_path_factory.mktemp("packages")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert [main(["plugins", "new", f"my-{kind}", "--kind", kind]) for kind in KINDS] == [0] * len(KINDS)
    packages = [f"./qgate-my-{kind}" for kind in KINDS]
    made = Written(folder, folder / "site", {kind: [] for kind in KINDS}, {kind: [] for kind in KINDS})
    flags = ("--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check")
    made.run("-m", "pip", "install", *flags, "--target", "site", *packages)
    made.run("-m", "pytest", "-W", "error", "-p", "no:cacheprovider", "--junitxml=junit.xml", *packages)
    for case in ElementTree.parse(folder / "junit.xml").iter("testcase"):  # noqa: S314  # pytest wrote it just now
        kind = next(kind for kind in KINDS if f"test_my_{kind}" in case.attrib["classname"] + case.attrib["name"])
        broken = [*case.iter("failure"), *case.iter("error")]
        (made.failed if broken else made.passed)[kind].append(case.attrib["name"])
    return made


@pytest.mark.parametrize("kind", KINDS)
def test_the_package_passes_its_tests_as_written(written: Written, kind: str) -> None:
    assert written.failed[kind] == []
    assert any(name.startswith("test_a_gate_") for name in written.passed[kind])
    assert "test_it_says_what_it_is" in written.passed[kind]


def test_what_is_installed_is_found(written: Written) -> None:
    registered = json.loads(written.run("-m", "qgate", "plugins", "--json"))["registered"]

    assert {kind: registered[f"{kind}s"].get(f"my_{kind}") for kind in KINDS} == {kind: f"my_{kind}" for kind in KINDS}


def test_the_readme_names_what_is_there(written: Written) -> None:
    folder = written.folder / "qgate-my-metric"
    text = (folder / "README.md").read_text()

    assert "[models.X.thresholds.my_metric]" in text
    for path in ("qgate_my_metric/metric.py", "tests/test_my_metric.py"):
        assert f"`{path}`" in text
        assert (folder / path).is_file()


@pytest.fixture
def qgate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Qgate:
    monkeypatch.chdir(tmp_path)
    return in_process(capsys)


def names_in(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def test_a_metric_is_written_where_nothing_else_is_asked_for(qgate: Qgate, tmp_path: Path) -> None:
    outcome = qgate("plugins", "new", "word-errors")

    folder = tmp_path / "qgate-word-errors"
    assert outcome == Outcome(
        0,
        "wrote qgate-word-errors; run `pip install --editable qgate-word-errors`, then `pytest qgate-word-errors`\n",
        "",
    )
    assert sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()) == [
        "README.md",
        "pyproject.toml",
        "qgate_word_errors/__init__.py",
        "qgate_word_errors/metric.py",
        "qgate_word_errors/py.typed",
        "tests/test_word_errors.py",
    ]
    assert "class WordErrors:" in (folder / "qgate_word_errors" / "metric.py").read_text()
    assert names_in(tmp_path) == ["qgate-word-errors"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Words", '"Words" cannot be a plugin\'s name; expected small letters and digits, a letter first'),
        ("3d", '"3d" cannot be a plugin\'s name'),
        ("two words", '"two words" cannot be a plugin\'s name'),
        ("../up", '"../up" cannot be a plugin\'s name'),
        ("a--b", '"a--b" cannot be a plugin\'s name'),
        ("ärger", '"ärger" cannot be a plugin\'s name'),
        ("", '"" cannot be a plugin\'s name'),
        ("qgate-words", 'leave out "qgate-", which goes before the name by itself: "words"'),
        ("detection", '"detection" is the name of an installed plugin; choose another'),
        ("qgate", '"qgate" is the name of an installed plugin; choose another'),
        ("map", '"map" is a metric of plugin "detection"; choose another name'),
    ],
)
def test_a_name_that_cannot_be(qgate: Qgate, tmp_path: Path, name: str, message: str) -> None:
    assert message in qgate("plugins", "new", name).error
    assert names_in(tmp_path) == []


@pytest.mark.parametrize(
    ("kind", "name", "class_name"),
    [
        ("metric", "none", "None"),
        ("metric", "true", "True"),
        ("loader", "exception", "Exception"),
        ("dataset", "sample", "Sample"),
        ("metric", "mapping", "Mapping"),
        ("loader", "path", "Path"),
        ("reporter", "project", "Project"),
    ],
)
def test_a_name_whose_class_would_hide_another(
    qgate: Qgate, tmp_path: Path, kind: str, name: str, class_name: str
) -> None:
    assert qgate("plugins", "new", name, "--kind", kind).error == (
        f'"{name}" would name a class {class_name}, as Python or what its file imports does; choose another'
    )
    assert names_in(tmp_path) == []


def test_a_class_that_clashes_in_another_kinds_file_only_can_be(qgate: Qgate) -> None:
    assert qgate("plugins", "new", "data-error", "--kind", "dataset").code == 4
    assert qgate("plugins", "new", "data-error", "--kind", "calibrator").code == 0


def test_a_name_is_taken_only_among_its_kind(qgate: Qgate) -> None:
    assert qgate("plugins", "new", "map", "--kind", "reporter").code == 0


@pytest.mark.parametrize("make", [os.mkdir, lambda path: path.write_text("mine"), lambda path: path.symlink_to("gone")])
def test_what_is_there_stays(qgate: Qgate, tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "qgate-words")
    before = (tmp_path / "qgate-words").lstat()

    message = qgate("plugins", "new", "words").error

    assert message == "qgate-words: is there already, and stays as it is; choose another name"
    assert (tmp_path / "qgate-words").lstat() == before
    assert names_in(tmp_path) == ["qgate-words"]


def test_what_cannot_be_written_leaves_nothing(qgate: Qgate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_text", full)

    assert qgate("plugins", "new", "words").error.startswith("qgate-words: cannot be written: No space left on device")
    assert names_in(tmp_path) == []


def test_another_kind_is_an_error_that_lists_them(qgate: Qgate) -> None:
    message = qgate("plugins", "new", "words", "--kind", "metrics").error

    assert "invalid choice: 'metrics'" in message
    assert all(kind in message for kind in KINDS)
