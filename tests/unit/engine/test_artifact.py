from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from engine_doubles import header, registry
from small_networks import NETWORKS, Network, flat, reference
from torch import nn

from qgate.engine.artifact import artifact_bytes, float_bytes, load_artifact, read_header, write_artifact
from qgate.errors import ArtifactError

if TYPE_CHECKING:
    from engine_doubles import Made


def test_a_reloaded_model_gives_the_same_outputs_bit_for_bit(made: Made) -> None:
    loaded = load_artifact(made.path)

    with torch.no_grad():
        for seed in range(20, 24):
            inputs = made.network.inputs(seed)
            assert torch.equal(flat(loaded(*inputs)), flat(made.before(*inputs)))


LOAD = """
import sys, torch, qgate
torch.save(qgate.load_artifact(sys.argv[1])(torch.load(sys.argv[2])), sys.argv[3])
assert not {"small_networks", "qgate_yolov5.checkpoint"} & set(sys.modules)
"""


def test_another_process_needs_none_of_the_models_code(made: Made, tmp_path: Path) -> None:
    root = Path(__file__).parents[3]
    (inputs,) = made.network.inputs(30)
    torch.save(inputs, tmp_path / "inputs.pt")

    subprocess.run(
        [sys.executable, "-c", LOAD, made.path, "inputs.pt", "outputs.pt"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join((str(root), str(root / "plugins")))},
        cwd=tmp_path,
        check=True,
    )

    assert torch.equal(torch.load(tmp_path / "outputs.pt"), made.before(inputs))


def test_the_header_says_what_was_put_in_and_what_inputs_look_like(made: Made) -> None:
    read = read_header(made.path)

    assert read == {**header(), "inputs": [{"shape": [1, 3, 8, 8], "dtype": "float32"}]}


def test_loading_leaves_the_random_state_and_the_engine_as_they_were(made: Made) -> None:
    before = torch.random.get_rng_state(), torch.backends.quantized.engine

    load_artifact(made.path)

    assert torch.equal(before[0], torch.random.get_rng_state())
    assert before[1] == torch.backends.quantized.engine


def written(tmp_path: Path, **recipe: Any) -> Path:
    network = NETWORKS["linear"]
    path = tmp_path / "model.pt"
    write_artifact(path, artifact_bytes(reference(network), network.inputs(), header(**recipe)))
    return path


class TestWhatThisMachineCannotRun:
    def test_an_unknown_backend(self, tmp_path: Path) -> None:
        with pytest.raises(ArtifactError, match=r'model\.pt: needs backend "gone"; install the plugin that has it'):
            load_artifact(written(tmp_path, backend="gone"))

    def test_a_backend_that_is_not_available(self, tmp_path: Path) -> None:
        path = written(tmp_path, backend="other")

        with pytest.raises(ArtifactError, match=r'model\.pt: needs backend "other", but it rains'):
            load_artifact(path, registry=registry(reason="it rains"))

    def test_kernels_that_would_saturate(self, tmp_path: Path) -> None:
        path = written(tmp_path, backend="other", reduce_range=False)

        with pytest.raises(ArtifactError, match=r"full int8 range on a CPU with VNNI.*saturate on this CPU"):
            load_artifact(path, registry=registry(saturates=True))
        assert load_artifact(path, registry=registry()) is not None

    def test_a_reduced_range_runs_anywhere(self, tmp_path: Path) -> None:
        path = written(tmp_path, backend="other", reduce_range=True)

        assert load_artifact(path, registry=registry(saturates=True)) is not None


class TestSize:
    def test_float_bytes_are_those_of_float32_weights(self) -> None:
        module = nn.Sequential(nn.Conv2d(64, 64, 3), nn.BatchNorm2d(64))
        numbers = 64 * 64 * 9 + 64 + 4 * 64

        assert float_bytes(module) == pytest.approx(4 * numbers, rel=0.02)
        assert float_bytes(module.half()) == float_bytes(module.float())

    def test_int8_takes_about_a_quarter(self) -> None:
        network = Network(lambda: nn.Sequential(*(nn.Conv2d(64, 64, 3, padding=1) for _ in range(4))), (1, 64, 8, 8))

        content = artifact_bytes(reference(network), network.inputs(), header())

        assert 0.25 < len(content) / float_bytes(network.module()) < 0.29
