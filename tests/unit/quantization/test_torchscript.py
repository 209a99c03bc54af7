from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
import torch
from small_networks import BACKENDS, NETWORKS, reference

from qgate.errors import ArtifactError
from qgate.quantization.torchscript import TorchScriptExporter

if TYPE_CHECKING:
    from pathlib import Path

RUN = """
import sys
import torch
extra = {"qgate.json": ""}
for name in sys.argv[1:]:
    module = torch.jit.load(name + ".pt", _extra_files=extra)
    torch.save((module(torch.load(name + ".in")), extra["qgate.json"]), name + ".out")
assert not any(name.startswith("qgate") for name in sys.modules)
"""


def header(backend: str) -> dict[str, Any]:
    return {"quantization": {"backend": backend}, "class_names": ["cat"]}


def test_it_runs_without_qgate(tmp_path: Path) -> None:
    network, expected = NETWORKS["residual"], {}
    for name, backend in BACKENDS.items():
        graph = reference(network, backend())
        content = TorchScriptExporter().export(graph, network.inputs(), header(name))
        (tmp_path / f"{name}.pt").write_bytes(content)
        torch.save(network.inputs(3)[0], tmp_path / f"{name}.in")
        expected[name] = reference(network, backend())(*network.inputs(3))

    done = subprocess.run(
        [sys.executable, "-c", RUN, *BACKENDS], cwd=tmp_path, capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stderr
    for name, wanted in expected.items():
        found, said = torch.load(tmp_path / f"{name}.out")
        # Kernels round other ways than the reference graph, a step here and there.
        assert float((found - wanted).abs().max()) <= 2.01 * float(wanted.max() - wanted.min()) / 255
        assert json.loads(said) == header(name)


def test_kernels_that_are_not_torchs_own_are_refused_with_those_that_are() -> None:
    with pytest.raises(ArtifactError) as caught:
        TorchScriptExporter().export(reference(NETWORKS["residual"]), (), header("fused"))

    assert str(caught.value) == (
        "the kernels of backend \"fused\" are not torch's own; name one of fbgemm, onednn, x86 as the recipe's backend"
    )
