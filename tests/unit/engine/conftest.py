"""An artifact of a small network."""

from __future__ import annotations

import pytest
from engine_doubles import Made, header
from small_networks import NETWORKS, reference

from qgate.engine.artifact import artifact_bytes, write_artifact
from qgate.quantization.backends import FbgemmBackend


@pytest.fixture(scope="session", params=["residual", "kept_whole"])
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Made:
    network = NETWORKS[request.param]
    graph = reference(network)
    path = tmp_path_factory.mktemp("made") / "model.pt"
    write_artifact(path, artifact_bytes(graph, network.inputs(), header()))
    return Made(path, network, FbgemmBackend().lower(graph, network.inputs()))
