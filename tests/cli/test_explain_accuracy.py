from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from command_line import Outcome
    from toy_project import Folder

    Qgate = Callable[..., Outcome]

QUANTIZED = {"first", "second", "head"}
# The toy's two splits are the same images. These are others, for trials.
OTHERS = "\n\ndef others():\n    images = torch.rand(20, 3, 8, 8)\n    return [(image, 0) for image in images]\n"


@pytest.fixture
def held_out(project: Folder) -> Folder:
    project.write("toy.py", project.text("toy.py") + OTHERS)
    text = project.text("qgate.toml")
    project.write(
        "qgate.toml", text.replace('calibration = { factory = "toy:data"', 'calibration = { factory = "toy:others"')
    )
    return project


def unwrapped(text: str) -> str:
    return " ".join(text.split())


def test_the_layers_are_listed_noisiest_first_and_nothing_is_written(project: Folder, qgate: Qgate) -> None:
    before = {path: path.stat().st_mtime_ns for path in project.root.rglob("*.*") if "__pycache__" not in path.parts}

    outcome = qgate("explain", "--accuracy")

    assert outcome.code == 0, outcome
    lines = outcome.out.splitlines()
    assert lines[0] == "qgate explain --accuracy: toy, backend fbgemm, 8 calibration samples"
    assert lines[1].startswith("int8's raw outputs: ")
    assert max(map(len, lines)) <= 80
    start = lines.index("layer (dB) alone accumulated") + 1
    rows = [line.split() for line in lines[start : start + 6]]
    assert {row[0] for row in rows} == {*QUANTIZED, "image", "pool", "flatten"}
    ratios = [float(row[1]) for row in rows]
    assert ratios == sorted(ratios)
    assert "was not measured: every calibration sample is an evaluation sample too" in unwrapped(outcome.out)
    assert before == {path: path.stat().st_mtime_ns for path in before}


def test_json_has_every_layer_and_what_the_worst_are_worth_in_float(held_out: Folder, qgate: Qgate) -> None:
    outcome = qgate("explain", "toy", "--accuracy", "--json")

    found = json.loads(outcome.out)["toy"]
    assert outcome.code == 0, outcome
    alone = {layer["layer"]: layer["alone"] for layer in found["layers"]}
    assert set(alone) >= QUANTIZED
    finite = {name: ratio for name, ratio in alone.items() if ratio is not None}
    assert found["worst"] == sorted(finite, key=lambda name: finite[name])[:3]
    measured = found["held_out"]
    assert measured["samples"] == "12 held-out calibration samples"
    assert set(measured["kept_float"]) == QUANTIZED
    assert all(set(values) == {"accuracy"} for values in measured["kept_float"].values())
    assert 20 < found["output_snr"] < 60


def test_what_a_layer_is_worth_has_a_column(held_out: Folder, qgate: Qgate) -> None:
    outcome = qgate("explain", "--accuracy")

    assert "accuracy if float" in outcome.out
    assert "on 12 held-out calibration samples" in unwrapped(outcome.out)


def test_a_plot_is_written(project: Folder, qgate: Qgate) -> None:
    pytest.importorskip("matplotlib")

    assert qgate("explain", "--accuracy", "--plot", "noise.png").code == 0
    assert (project.root / "noise.png").read_bytes().startswith(b"\x89PNG")
    assert qgate("explain", "--accuracy", "--plot", "noise.txt").error.startswith(
        'noise.txt: --plot cannot write a ".txt" file; name one of '
    )
    assert qgate("explain", "--accuracy", "--plot", "missing/noise.png").code == 4


@pytest.mark.usefixtures("project")
def test_without_matplotlib_one_line_says_what_to_install(qgate: Qgate, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.backends.backend_agg", None)

    assert qgate("explain", "--accuracy", "--plot", "noise.png").error == (
        "--plot needs matplotlib; install it: pip install 'pytest-qgate[plot]'"
    )


@pytest.mark.usefixtures("project")
def test_a_plot_of_times_is_refused(qgate: Qgate) -> None:
    assert qgate("explain", "--plot", "noise.png").error == "--plot needs --accuracy"


def test_a_fallback_s_artifact_is_the_recipes(held_out: Folder, qgate: Qgate, tmp_path: Path) -> None:
    text = held_out.text("qgate.toml")
    held_out.write(
        "qgate.toml",
        text.replace(
            "[models.toy.timing]", "[models.toy.quantization.fallback]\nmax_layers = 1\n\n[models.toy.timing]"
        ),
    )
    assert qgate("check", "--no-timing").code == 1  # speed was not measured

    assert "quantized anew" not in qgate("explain", "--accuracy").out
