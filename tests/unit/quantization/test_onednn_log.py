"""What oneDNN says it ran is read from standard output, which is as it was afterwards."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from qgate.quantization.onednn_log import onednn_log

pytestmark = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="this torch has no oneDNN")


def convolve() -> None:
    # A float32 convolution of this size is oneDNN's wherever torch has it.
    with torch.no_grad():
        torch.nn.functional.conv2d(torch.ones(2, 64, 32, 32), torch.ones(64, 64, 3, 3))


def test_each_question_is_answered_with_what_ran_since_the_last(capfd: pytest.CaptureFixture[str]) -> None:
    with onednn_log() as ran:
        convolve()
        first = ran()
        nothing = ran()
        convolve()
        convolve()
        twice = ran()

    assert len(first) == 1
    assert first[0]
    assert (nothing, twice) == ([], first * 2)
    assert capfd.readouterr().out == ""
    convolve()
    assert capfd.readouterr().out == ""  # oneDNN is silent again


def test_what_others_write_meanwhile_is_not_lost(capfd: pytest.CaptureFixture[str]) -> None:
    sys.stdout.write("before\n")
    with onednn_log():
        convolve()
        os.write(1, b"within\n")
    os.write(1, b"after\n")

    assert capfd.readouterr().out == "before\nwithin\nafter\n"


def test_standard_output_is_restored_after_an_error(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(RuntimeError, match="a bug"), onednn_log():
        raise RuntimeError("a bug")
    os.write(1, b"seen\n")

    assert capfd.readouterr().out == "seen\n"


def test_no_descriptor_is_left_open() -> None:
    opened = Path("/proc/self/fd")
    before = len(list(opened.iterdir()))
    for _ in range(3):
        with onednn_log():
            pass

    assert len(list(opened.iterdir())) == before


def test_a_closed_standard_output_stays_closed() -> None:
    code = (
        "import os, sys, torch; os.close(1)\n"
        "from qgate.quantization.onednn_log import onednn_log\n"
        "with onednn_log() as ran:\n"
        "    torch.nn.functional.conv2d(torch.ones(2, 64, 32, 32), torch.ones(64, 64, 3, 3))\n"
        "    names = ran()\n"
        "sys.stderr.write(str(isinstance(names, list) and not os.path.exists('/proc/self/fd/1')))\n"
    )

    done = subprocess.run([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True, check=False, timeout=120)

    assert (done.returncode, done.stderr) == (0, "True")
