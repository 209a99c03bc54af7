from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from command_line import Outcome
    from toy_project import Folder

    Qgate = Callable[..., Outcome]

LAYERS = {"image", "first", "second", "pool", "flatten", "head"}


def test_the_last_runs_artifact_is_explained(project: Folder, qgate: Qgate) -> None:
    before = {path: path.stat().st_mtime_ns for path in (project.root / ".qgate").rglob("*")}

    outcome = qgate("explain")

    assert outcome.code == 0, outcome
    first, second, *_ = outcome.out.splitlines()
    assert first.startswith("qgate explain: toy, backend fbgemm, 1 thread, medians of ")
    assert second.startswith("float32 ")
    assert "quantized anew" not in outcome.out
    assert max(map(len, outcome.out.splitlines())) <= 80
    for layer in ("first", "second", "head"):
        assert [line for line in outcome.out.splitlines() if line.startswith(f"{layer} ")], layer
    assert {path: path.stat().st_mtime_ns for path in (project.root / ".qgate").rglob("*")} == before


def test_json_has_every_node_and_its_times_add_up(project: Folder, qgate: Qgate) -> None:
    outcome = qgate("explain", "toy", "--json")

    found = json.loads(outcome.out)["toy"]
    assert outcome.code == 0, outcome
    assert {layer["layer"] for layer in found["layers"]} <= LAYERS
    assert (found["required_speedup"], found["quantized_anew"]) == (0.001, None)
    for layer in found["layers"]:
        assert layer["int8"] == pytest.approx(sum(node["seconds"] for node in layer["nodes"]))
        assert layer["excess"] == pytest.approx(layer["int8"] - layer["float32"] / 0.001)
    kinds = [node["kind"] for layer in found["layers"] for node in layer["nodes"]]
    assert kinds.count("kernel") >= 3
    assert found["kernels"]["fbgemm"] == 2  # the last layer runs in float32
    by_kind = {kind: seconds for kind, seconds in found["int8"].items() if kind != "between"}
    assert sum(by_kind.values()) == pytest.approx(sum(layer["int8"] for layer in found["layers"]))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("none", "no run has left an artifact yet"),
        ("recipe", "the recipe is not that of the last run"),
    ],
)
def test_without_an_artifact_of_this_recipe_it_quantizes_and_says_why(
    change: str, reason: str, project: Folder, qgate: Qgate
) -> None:
    artifact = project.root / ".qgate" / "artifacts" / "toy.pt"
    if change == "none":
        artifact.unlink()
    else:
        text = project.text("qgate.toml")
        project.write("qgate.toml", text.replace('{ observer = "minmax" }', '{ observer = "histogram" }'))
    before = artifact.read_bytes() if artifact.exists() else None

    outcome = qgate("explain")

    assert outcome.code == 0, outcome
    assert f"quantized anew, and not kept: {reason}\n" in outcome.out
    assert (artifact.read_bytes() if artifact.exists() else None) == before


SEALED = """
import qgate
from qgate.quantization.backends import FbgemmBackend


class Sealed:
    name = "sealed"

    def __init__(self):
        fbgemm = FbgemmBackend()
        self.is_available, self.lower = fbgemm.is_available, fbgemm.lower
        self.backend_config, self.needs_reduced_range = fbgemm.backend_config, fbgemm.needs_reduced_range


@qgate.hookimpl
def qgate_register_backends():
    return [Sealed]
"""


def test_a_backend_that_shows_no_graph_is_told_in_one_line(project: Folder, qgate: Qgate) -> None:
    project.write("conftest.py", project.text("conftest.py") + SEALED)
    text = project.text("qgate.toml")
    project.write(
        "qgate.toml", text.replace("[models.toy.quantization]", '[models.toy.quantization]\nbackend = "sealed"')
    )

    assert qgate("explain").error == (
        '[models.toy.quantization] backend "sealed" has no lower_graph, without which its time cannot be told layer by '
        "layer; name another backend"
    )


def test_an_unknown_model_exits_with_4(project: Folder, qgate: Qgate) -> None:
    assert qgate("explain", "large").error == 'qgate.toml: has no model "large"; it has toy'
