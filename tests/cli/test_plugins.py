from __future__ import annotations

import inspect
import json
from typing import TYPE_CHECKING

import pytest

from qgate import hookspecs

if TYPE_CHECKING:
    from collections.abc import Callable

    from command_line import Outcome
    from toy_project import Folder

    Qgate = Callable[..., Outcome]


def test_every_name_and_every_hook_is_listed(project: Folder, qgate: Qgate) -> None:
    outcome = qgate("plugins", "--json")

    listing = json.loads(outcome.out)
    assert (outcome.code, outcome.err) == (0, "")
    assert listing["registered"]["metrics"]["accuracy"] == "conftest.py"
    assert listing["registered"]["loaders"] == {"factory": "qgate", "onnx": "onnx", "yolov5": "yolov5"}
    hooks = {name for name, _ in inspect.getmembers(hookspecs, inspect.isfunction) if name.startswith("qgate_")}
    assert set(listing["hooks"]) == hooks


def test_the_text_fits_80_columns_and_names_the_same(project: Folder, qgate: Qgate) -> None:
    text = qgate("plugins").out
    listing = json.loads(qgate("plugins", "--json").out)

    assert max(map(len, text.splitlines())) <= 80
    for kind, names in listing["registered"].items():
        assert f"\n{kind}:\n" in f"\n{text}"
        for name, plugin in names.items():
            assert [name, plugin] in [line.split() for line in text.splitlines()]


def test_without_a_configuration_the_installed_ones_are_listed(
    project: Folder, qgate: Qgate, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path_factory.mktemp("empty"))

    assert "accuracy" not in json.loads(qgate("plugins", "--json").out)["registered"]["metrics"]


@pytest.mark.parametrize(
    ("found", "replacement", "expected"),
    [
        ("qgate_register_metrics", "qgate_register_metrcs", "qgate_register_metrcs"),
        ("@qgate.hookimpl\n", "", "put @qgate.hookimpl above it"),
        ("import qgate", "import qgate, nothing_of_that_name", "cannot be imported: ModuleNotFoundError"),
        ("[Accuracy]", "[Accuracy, Accuracy]", '"accuracy" is taken twice among the metrics'),
        ('name = "accuracy"', "title = 3", "has no `name`"),
        ("[Accuracy]", "1 / 0", "qgate_register_metrics failed: ZeroDivisionError"),
    ],
    ids=["misspelt", "unmarked", "import", "twice", "nameless", "crash"],
)
def test_a_mistake_in_a_plugin_names_it(
    project: Folder, qgate: Qgate, found: str, replacement: str, expected: str
) -> None:
    project.write("conftest.py", project.text("conftest.py").replace(found, replacement))

    error = qgate("plugins").error

    assert "conftest.py" in error
    assert expected in error
