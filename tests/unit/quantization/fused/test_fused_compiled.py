from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
import torch
from fused_networks import SHAPE, Wired, conv, conv_bn, flat
from small_networks import NETWORKS, Network, reference
from torch import nn
from torch.nn import functional

from qgate.quantization.byte_table import kernel_name
from qgate.quantization.fused import FusedBackend
from qgate.quantization.prepare import quiet_torch_ao

if TYPE_CHECKING:
    from pathlib import Path


def network(wiring: Any, shape: tuple[int, ...] = SHAPE, **modules: nn.Module) -> Network:
    return Network(lambda: Wired(wiring, **modules).eval(), shape)


def sum_of_two() -> Network:
    return network(
        lambda m, x: m.out((m.first(x) + m.second(x)).relu()),
        first=conv_bn(3, 32, nn.ReLU()),
        second=conv_bn(3, 32),
        out=conv(32, 4),
    )


def joined_and_framed() -> Network:
    return network(
        lambda m, x: m.out(
            torch.cat([m.pool(m.left(x)), functional.pad(m.right(x), (1, 1, 1, 1))[:, :, 1:-1, 1:-1]], 1)
        ),
        left=conv_bn(3, 5, nn.SiLU()),
        right=conv_bn(3, 32, nn.SiLU()),
        pool=nn.MaxPool2d(3, 1, 1),
        out=conv(37, 4),
    )


def clamped() -> Network:
    return network(
        lambda m, x: m.out(m.up(m.last(m.first(x)))),
        first=conv_bn(3, 8, nn.ReLU6()),
        last=conv_bn(8, 8, nn.Hardtanh(-0.25, 0.5)),
        up=nn.Upsample(scale_factor=2),
        out=conv(8, 4),
    )


def tokens() -> Network:
    return network(
        lambda m, x: m.out(m.norm(m.first(x).chunk(2, -1)[0]) + m.second(x)),
        (2, 7, 16),
        first=nn.Sequential(nn.Linear(16, 32), nn.GELU()),
        norm=nn.LayerNorm(16),
        second=nn.Sequential(nn.Linear(16, 16), nn.LeakyReLU(0.2)),
        out=nn.Linear(16, 5),
    )


def rows() -> Network:
    return network(
        lambda m, x: m.out(m.first(x)), (2, 3, 15), first=nn.Conv1d(3, 8, 3, padding=1), out=nn.Conv1d(8, 4, 1)
    )


def own_networks() -> dict[str, Network]:
    """Give the networks of this file, whose weights must not depend on what pytest collected before."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return {make.__name__: make() for make in (sum_of_two, joined_and_framed, clamped, tokens, rows)}


ALL = {name: network for name, network in NETWORKS.items() if not network.non_traceable} | own_networks()


def lowered(made: Network) -> tuple[nn.Module, nn.Module]:
    """Give what ships, and the graph of kernels node by node."""
    backend = FusedBackend()
    with quiet_torch_ao():
        return (
            backend.lower(reference(made, backend, float_outputs=True, float_summands=True), made.inputs()),
            backend.lower_graph(reference(made, backend, float_outputs=True, float_summands=True)),
        )


def is_compiled(module: nn.Module) -> bool:
    return any(isinstance(part, torch.jit.ScriptModule) for part in module.modules())


@pytest.mark.parametrize("made", ALL.values(), ids=ALL)
def test_what_ships_is_compiled_and_gives_what_the_kernels_give_one_by_one(made: Network) -> None:
    torch.manual_seed(0)
    shipped, kernels = lowered(made)

    assert is_compiled(shipped)
    equal = []
    with torch.inference_mode(), quiet_torch_ao():
        for seed in range(3, 11):
            expected = kernels(*made.inputs(seed))
            given = shipped(*made.inputs(seed))
            assert type(given) is type(expected)
            # The two call other operators, which may round a tie differently: one byte, which an upsampling
            # and a 3x3 kernel carry to 64 outputs. So what is small is counted over several inputs.
            assert (flat(given) - flat(expected)).abs().max() <= 0.01 * flat(expected).abs().max()
            equal.append(flat(given) == flat(expected))
    assert torch.cat(equal).double().mean() > 0.99


def test_inputs_of_another_shape_run_as_well() -> None:
    shipped, kernels = lowered(sum_of_two())
    other = torch.rand(1, 3, 20, 18)

    with torch.no_grad():
        assert shipped(other).equal(kernels(other))


def test_passes_side_by_side_do_not_disturb_each_other() -> None:
    made = joined_and_framed()
    shipped, _ = lowered(made)
    images = [made.inputs(seed)[0] for seed in range(64)]
    with torch.inference_mode():
        expected = [shipped(image) for image in images]

    def run(image: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode():
            return shipped(image)  # type: ignore[no-any-return]  # a module's result

    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(run, images))

    assert all(result.equal(wanted) for result, wanted in zip(results, expected, strict=True))


class Fork(nn.Module):
    """Goes one way or another by what it is given."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * 2 if x[0, 0, 0, 0] > x[0, 0, 0, -1] else x - 1


def test_a_branch_on_data_goes_either_way() -> None:
    shipped, kernels = lowered(
        Network(lambda: nn.Sequential(conv(3, 4), Fork(), conv(4, 4)).eval(), SHAPE, non_traceable=("1",))
    )

    assert not is_compiled(shipped)
    with torch.no_grad():
        for seed in range(8):
            image = torch.rand(SHAPE, generator=torch.Generator().manual_seed(seed))
            assert shipped(image).equal(kernels(image))


@pytest.mark.parametrize("what", ["cannot be traced", "gives something else"])
def test_a_graph_that_cannot_be_compiled_runs_node_by_node(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise RuntimeError(what)

    made = sum_of_two()
    if what == "cannot be traced":
        monkeypatch.setattr("qgate.quantization.fused.compiled.frozen", fail)
    else:
        monkeypatch.setattr("qgate.quantization.fused.compiled.agree", lambda *_: False)
    shipped, kernels = lowered(made)

    assert not is_compiled(shipped)
    with torch.no_grad():
        assert shipped(*made.inputs(3)).equal(kernels(*made.inputs(3)))


_RUN_WITHOUT = """
import sys
sys.path[:0] = sys.argv[1:]
sys.modules["qgate.quantization._byte_table"] = None
import test_fused_compiled as tests
print(tests.kernel_name(), tests.outputs_of_a_compiled_network())
"""


def outputs_of_a_compiled_network() -> str:
    torch.manual_seed(0)
    made = joined_and_framed()
    shipped, _ = lowered(made)
    assert is_compiled(shipped)
    with torch.inference_mode():
        return torch.stack([shipped(*made.inputs(seed)) for seed in range(3)]).double().numpy().tobytes().hex()


@pytest.mark.skipif(kernel_name() == "cv2.LUT", reason="the native module was not built")
def test_without_the_native_module_the_outputs_are_the_same_bit_for_bit(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _RUN_WITHOUT, *sys.path]
    run = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)

    assert run.stdout.split() == ["cv2.LUT", outputs_of_a_compiled_network()]
