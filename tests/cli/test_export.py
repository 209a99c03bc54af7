from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import pytest
import torch

from qgate import load_artifact

if TYPE_CHECKING:
    from collections.abc import Callable

    from command_line import Outcome
    from toy_project import Folder

    Qgate = Callable[..., Outcome]


def test_the_artifact_runs_without_what_it_came_from(project: Folder, qgate: Qgate) -> None:
    outcome = qgate("export", "--model", "toy", "--output", "out/toy.pt")

    content = (project.root / "out" / "toy.pt").read_bytes()
    assert outcome.code == 0, outcome
    assert outcome.out == f"wrote out/toy.pt: {len(content)} bytes, sha256 {hashlib.sha256(content).hexdigest()}\n"
    (project.root / "toy.py").unlink()
    with torch.inference_mode():
        assert load_artifact(project.root / "out" / "toy.pt")(torch.rand(1, 3, 8, 8)).shape == (1, 4)


def test_the_only_model_needs_no_name(project: Folder, qgate: Qgate) -> None:
    outcome = qgate("export", "--output", "toy.pt")

    assert (outcome.code, outcome.out[:12]) == (0, "wrote toy.pt"), outcome


def test_of_several_models_one_must_be_named(project: Folder, qgate: Qgate) -> None:
    text = project.text("qgate.toml")
    project.write("qgate.toml", text + text[text.index("[models.toy]") :].replace("models.toy", "models.other"))

    error = qgate("export", "--output", "toy.pt").error

    assert error == "qgate.toml: one model is written to one file; name it with --model: toy, other"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--model", "large", "--output", "x.pt"), 'qgate.toml: has no model "large"; it has toy'),
        (("--model", "toy", "--output", "."), ".: is a folder; --output names the file to write"),
        (("--model", "toy"), "the following arguments are required: -o/--output; see `qgate export --help`"),
    ],
    ids=["unknown model", "folder", "no output"],
)
def test_a_mistake_exits_with_4(project: Folder, qgate: Qgate, arguments: tuple[str, ...], expected: str) -> None:
    assert qgate("export", *arguments).error == expected


def test_a_file_that_cannot_be_written_is_found_before_anything_slow(project: Folder, qgate: Qgate) -> None:
    project.write("toy.py", project.text("toy.py") + "\nraise RuntimeError('read')\n")

    error = qgate("export", "--model", "toy", "-o", "toy.py/toy.pt").error

    assert error.startswith("toy.py/toy.pt: cannot be written: Not a directory; ")
