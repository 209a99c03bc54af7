"""The fused form of an artifact, made anew in another process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from fused_networks import SHAPE, Wired, conv, conv_bn, fused
from small_networks import Network
from torch import nn
from torch.nn import functional

from qgate.engine.artifact import artifact_bytes, load_artifact, load_reference, write_artifact
from qgate.quantization.fused import FusedBackend

ROOT = Path(__file__).parents[2]
BYTE = 1 / 255
HEADER = {
    "quantization": {"backend": "fused", "reduce_range": True},
    "environment": {"cpu": "a test's"},
    "byte_scale": BYTE,
}
RUN = """
import sys, torch
torch.set_num_threads(1)
from qgate.engine.artifact import load_artifact
module = load_artifact(sys.argv[1])
with torch.inference_mode():
    torch.save([module(image) for image in torch.load(sys.argv[2])], sys.argv[3])
"""


def wiring(s: Any, x: torch.Tensor) -> Any:
    x = s.stem(x)
    y = torch.relu(s.second(s.first(x)) + x)
    y = torch.cat([functional.max_pool2d(y, 3, 1, 1), s.prelu(y), functional.hardtanh(x, -1.0, 1.5)], 1)
    return s.head(y), torch.flatten(functional.adaptive_avg_pool2d(y, 1), 1)


def make() -> nn.Module:
    return Wired(
        wiring,
        stem=conv_bn(3, 8, nn.SiLU(), stride=2),
        first=conv_bn(8, 8, nn.SiLU()),
        second=conv_bn(8, 8),
        prelu=nn.PReLU(8),
        head=conv(24, 4, 1),
    )


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("artifact") / "model.pt"
    network = Network(make, SHAPE)
    graph, _ = fused(network, byte_scale=BYTE)
    write_artifact(path, artifact_bytes(graph, network.inputs(), HEADER))
    return path


def test_a_new_process_gives_the_same_output_bit_for_bit(artifact: Path, tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(5)
    images = [torch.rand(SHAPE, generator=generator), torch.randint(0, 256, SHAPE, generator=generator).to(torch.uint8)]
    torch.save(images, tmp_path / "images.pt")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "plugins")])}

    here = load_artifact(artifact)
    command = [sys.executable, "-c", RUN, str(artifact), str(tmp_path / "images.pt"), str(tmp_path / "outputs.pt")]
    subprocess.run(command, check=True, env=environment, cwd=tmp_path)

    with torch.inference_mode():
        expected = [here(image) for image in images]
    for given, wanted in zip(torch.load(tmp_path / "outputs.pt"), expected, strict=True):
        assert all(torch.equal(*pair) for pair in zip(given, wanted, strict=True))


def test_the_reference_graph_comes_back_whole(artifact: Path) -> None:
    network = Network(make, SHAPE)
    graph, lowered = fused(network, byte_scale=BYTE)

    read = load_reference(artifact)

    assert [(node.op, node.name) for node in read.graph.nodes] == [(node.op, node.name) for node in graph.graph.nodes]
    with torch.no_grad():
        again = FusedBackend().lower_graph(read)(*network.inputs(3))
        expected = lowered(*network.inputs(3))
    assert all(torch.equal(*pair) for pair in zip(again, expected, strict=True))
