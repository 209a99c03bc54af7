from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

SCRIPT = """
from small_networks import NETWORKS, reference
from qgate.quantization.backends import FbgemmBackend
from qgate.quantization.codec import decode, encode
from qgate.quantization.float_forms import float_forms
from qgate.quantization.fused import FusedBackend

for name in ("residual", "kept_whole"):
    network = NETWORKS[name]
    for backend in (FbgemmBackend(), FusedBackend()):
        graph = decode(*encode(reference(network, backend), network.inputs()))
        backend.lower(graph, network.inputs())(*network.inputs())
    float_forms(network.module(), network.inputs(), network.non_traceable)
"""


def test_torchs_deprecations_do_not_reach_a_user_who_made_warnings_errors() -> None:
    tests = Path(__file__).parents[2]
    paths = os.pathsep.join(str(path) for path in (tests.parent, tests.parent / "plugins", tests))

    # Importing torch and numpy is not qgate's: only what is warned of afterwards is an error.
    script = f"import torch, torch.ao.quantization.quantize_fx, warnings; warnings.simplefilter('error'){SCRIPT}"
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=False,
    )

    assert (done.returncode, done.stderr) == (0, "")
