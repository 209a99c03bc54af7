"""What trains computes what int8 will, and its gradients are those of the papers."""

from __future__ import annotations

import contextlib
import copy
from typing import Any

import pytest
import torch
from small_networks import NETWORKS, Network, flat
from torch import nn

from qgate.quantization.backends import FbgemmBackend
from qgate.quantization.corrections.bias import biases_of, take_biases
from qgate.quantization.corrections.correct import correct
from qgate.quantization.fake_quantize import Student, _rounded
from qgate.quantization.fused import FusedBackend
from qgate.quantization.observers import MinMaxObserver, PerChannelMinMaxObserver, PerTensorMinMaxObserver
from qgate.quantization.prepare import Recipe, convert, prepare, quiet_torch_ao

BACKENDS = {"fbgemm": FbgemmBackend(), "fused": FusedBackend()}


def calibrated(network: Network, backend: Any = None, **changes: Any) -> torch.fx.GraphModule:
    backend = backend or FbgemmBackend()
    recipe: dict[str, Any] = {
        "activation": MinMaxObserver,
        "weight": PerChannelMinMaxObserver,
        "reduce_range": False,
        "non_traceable": network.non_traceable,
        "float_outputs": backend.name == "fused",  # so that the results of fbgemm's last layers are rounded, too
    }
    observed = prepare(network.module(), Recipe(**recipe | changes), backend.backend_config(), network.inputs())
    with torch.no_grad():
        for seed in range(1, 9):
            observed(*network.inputs(seed))
    return observed


def moved(student: Student) -> Student:
    """Move every parameter by up to a tenth, as training does."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for value in student.relative:
            value.mul_(1 + 0.1 * (2 * torch.rand(value.shape, generator=generator) - 1))
    return student


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("reduce_range", [False, True])
@pytest.mark.parametrize("name", NETWORKS)
def test_the_converted_graph_computes_what_was_trained(name: str, reduce_range: bool, backend: str) -> None:
    network, kernels = NETWORKS[name], BACKENDS[backend]
    student = moved(Student(calibrated(network, kernels, reduce_range=reduce_range)))

    reference = convert(student.calibrated(network.inputs()), kernels.backend_config())

    for seed in range(1, 5):
        with torch.no_grad():
            trained, _ = student(*network.inputs(seed))
            converted = reference(*network.inputs(seed))
        assert (flat(trained) - flat(converted)).abs().max() <= greatest_step(reference)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", ["concatenated", "residual", "conv_bn_silu"])
def test_kernels_compute_what_was_trained(name: str, backend: str) -> None:
    network, kernels = NETWORKS[name], BACKENDS[backend]
    student = moved(Student(calibrated(network, kernels)))
    reference = convert(student.calibrated(network.inputs()), kernels.backend_config())

    lowered = kernels.lower(copy.deepcopy(reference), network.inputs())

    with torch.no_grad():
        trained, _ = student(*network.inputs(1))
        assert (flat(trained) - flat(lowered(*network.inputs(1)))).abs().max() <= greatest_step(reference)


def test_what_shares_an_observer_keeps_sharing_its_scale() -> None:
    network = NETWORKS["concatenated"]
    student = moved(Student(calibrated(network)))

    reference = convert(student.calibrated(network.inputs()), FbgemmBackend().backend_config())

    (joined,) = (node for node in reference.graph.nodes if node.target is torch.cat)
    quantized = [source.args[0] for source in joined.args[0]]  # behind each stands its dequantize node
    scales = {float(getattr(reference, node.args[1].target)) for node in quantized}
    assert len(quantized) == 2
    assert len(scales) == 1


def greatest_step(reference: torch.fx.GraphModule) -> float:
    """Give the greatest step of an activation: that of the head, in networks of a few layers."""
    nodes = [node for node in reference.graph.nodes if node.target is torch.quantize_per_tensor]
    return max(float(getattr(reference, node.args[1].target)) for node in nodes)


@pytest.mark.parametrize("weight", [PerChannelMinMaxObserver, PerTensorMinMaxObserver])
@pytest.mark.parametrize("name", ["residual", "functional", "depthwise"])
def test_untrained_it_is_the_calibrated_graph(name: str, weight: type) -> None:
    network = NETWORKS[name]
    observed = calibrated(network, weight=weight)
    expected = convert(copy.deepcopy(observed), FbgemmBackend().backend_config())

    student = Student(observed)

    with torch.no_grad():
        assert torch.equal(flat(student(*network.inputs(9))[0]), flat(expected(*network.inputs(9))))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", ["residual", "conv_bn_silu", "linear"])
def test_it_starts_from_corrected_biases_bit_for_bit(name: str, backend: str) -> None:
    network, kernels = NETWORKS[name], BACKENDS[backend]
    observed = calibrated(network, kernels)
    expected = convert(copy.deepcopy(observed), kernels.backend_config())
    uncorrected = biases_of(expected)
    samples = [network.inputs(seed) for seed in range(1, 9)]
    correct(expected, samples, rounding=False, bias=True, advance=lambda: None)
    corrected = biases_of(expected)

    take_biases(observed, corrected)

    assert corrected
    assert any(not torch.equal(bias, uncorrected.get(name, bias)) for name, bias in corrected.items())
    with torch.no_grad(), quiet_torch_ao():
        assert torch.equal(flat(Student(observed)(*network.inputs(9))[0]), flat(expected(*network.inputs(9))))


def test_a_frozen_bias_stays_frozen() -> None:
    network = NETWORKS["linear"]
    observed = calibrated(network)
    biases = biases_of(convert(copy.deepcopy(observed), FbgemmBackend().backend_config()))
    observed.requires_grad_(requires_grad=False)

    take_biases(observed, {name: bias + 1 for name, bias in biases.items()})

    assert biases
    assert not any(value.requires_grad for value in observed.parameters())


def test_the_weights_gradient_is_that_of_torchs_own_fake_quantization() -> None:
    network = NETWORKS["linear"]
    student = Student(calibrated(network))
    (x,) = network.inputs(9)
    student(x)[0].square().sum().backward()

    weights = {name: value for name, value in student.graph.named_parameters() if not student.is_scale(name)}
    leaves = {name: value.detach().clone().requires_grad_() for name, value in weights.items()}
    observers = [observer for observer in student.graph.children() if hasattr(observer, "zero_point")]
    first, second, third = ((float(item.scale.detach()), int(item.zero_point)) for item in observers)
    hidden = rounded(
        nn.functional.linear(rounded(x, *first), by_channel(leaves["0.0.weight"]), leaves["0.0.bias"]).relu(), *second
    )
    output = rounded(nn.functional.linear(hidden, by_channel(leaves["2.weight"]), leaves["2.bias"]), *third)
    output.square().sum().backward()

    for name, relative, unit in zip(student.names, student.relative, student._units.buffers(), strict=True):
        if name in leaves:
            assert torch.allclose(relative.grad, leaves[name].grad * unit, rtol=1e-3, atol=1e-4), name


def rounded(x: torch.Tensor, scale: float, zero_point: int) -> torch.Tensor:
    return torch.fake_quantize_per_tensor_affine(x, scale, zero_point, 0, 255)


def by_channel(weight: torch.Tensor) -> torch.Tensor:
    scale = weight.detach().abs().amax(1) / 127.5
    return torch.fake_quantize_per_channel_affine(
        weight, scale, torch.zeros(len(scale), dtype=torch.int32), 0, -128, 127
    )


def test_the_scales_gradient_is_that_of_learned_step_size_quantization() -> None:
    """Esser et al. 2020, equation 3: v/s rounded less v/s within the range, the range's end beyond it."""
    network = Network(lambda: nn.Sequential(nn.Linear(4, 4)), (64, 4))
    student = Student(calibrated(network, float_outputs=True))
    (x,) = network.inputs()
    x = 3 * x  # beyond what was calibrated
    (name,) = [name for name in student.names if student.is_scale(name)]
    relative = student.relative[student.names.index(name)]
    fake = student.graph.get_submodule(name.rpartition(".")[0])
    step, zero_point = float(fake.scale.detach()), int(fake.zero_point)
    taken: list[torch.Tensor] = []

    def watch(_module: nn.Module, _inputs: Any, output: torch.Tensor) -> None:
        output.register_hook(taken.append)

    fake.register_forward_hook(watch)
    student(x)[0].square().sum().backward()

    values = (x / step).double()
    levels = (values.round() + zero_point).clamp(0, 255) - zero_point
    is_inside = levels == values.round()
    slope = torch.where(is_inside, levels - values, levels)
    expected = float((taken[0].double() * slope).sum()) / (x.numel() * 255) ** 0.5 * (step / float(relative.detach()))

    assert 0 < is_inside.double().mean() < 1
    assert relative.grad.item() == pytest.approx(expected, rel=1e-3)


def test_a_reduced_range_does_not_shrink() -> None:
    """Beyond it a kernel would saturate without a word; the model in training would not know."""
    network = NETWORKS["linear"]
    student = Student(calibrated(network, reduce_range=True))
    with torch.no_grad():
        for name, value in zip(student.names, student.relative, strict=True):
            if student.is_scale(name):
                value.mul_(0.5)

    found = [
        module.calculate_qparams()[0]
        for module in student.calibrated(network.inputs()).children()
        if hasattr(module, "found")
    ]
    before = [
        module.calculate_qparams()[0]
        for module in calibrated(network, reduce_range=True).children()
        if hasattr(module, "levels")
    ]

    assert [float(after / scale) for after, scale in zip(found, before, strict=True)] == [1.0, 1.0, 0.5]


def test_bytes_keep_their_scale() -> None:
    network = NETWORKS["residual"]

    student = Student(calibrated(network, byte_scale=1 / 255))

    scales = [name for name in student.names if student.is_scale(name)]
    assert "activation_post_process_0.scale" not in scales
    assert len(scales) > 2


def test_frozen_scales_learn_nothing() -> None:
    network = NETWORKS["residual"]
    student = Student(calibrated(network))
    student.freeze_scales()

    flat(student(*network.inputs())[0]).square().sum().backward()

    learnt = {
        name: bool(value.grad.abs().sum() > 0) for name, value in zip(student.names, student.relative, strict=True)
    }
    assert all(learns != student.is_scale(name) for name, learns in learnt.items())


def test_what_the_user_froze_stays() -> None:
    network = NETWORKS["linear"]
    module = network.module()
    module[0].requires_grad_(False)
    observed = prepare(
        module,
        Recipe(MinMaxObserver, PerChannelMinMaxObserver, reduce_range=False),
        FbgemmBackend().backend_config(),
        network.inputs(),
    )
    observed(*network.inputs())

    student = Student(observed)

    assert {name for name in student.names if not student.is_scale(name)} == {"2.weight", "2.bias"}


def test_an_activation_in_place_changes_nothing() -> None:
    plain, in_place = (
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.SiLU(inplace=each), nn.Conv2d(4, 2, 1)) for each in (False, True)
    )
    in_place.load_state_dict(plain.state_dict())
    gradients = []
    for module in (plain, in_place):
        network = Network(lambda module=module: copy.deepcopy(module))
        student = Student(calibrated(network))
        flat(student(*network.inputs())[0]).square().sum().backward()
        gradients.append([value.grad for value in student.relative])

    assert all(torch.equal(one, other) for one, other in zip(*gradients, strict=True))


class Noting(torch.nn.Module):
    """An observer with a buffer, as torch's have: what it gives is where that is."""

    quant_min, quant_max, qscheme, ch_axis = -128, 127, torch.per_channel_symmetric, 0
    eps: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("eps", torch.ones(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.maximum(x.amax(1), self.eps)

    def calculate_qparams(self) -> tuple[torch.Tensor, torch.Tensor]:
        return self.eps, torch.zeros_like(self.eps)


def test_a_weight_on_another_device_is_rounded_there() -> None:
    observer = Noting()

    with contextlib.suppress(NotImplementedError):  # of the rounding itself, which this device does not have
        _rounded(torch.empty(4, 3, device="meta"), observer)

    assert observer.eps.device.type == "meta"


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_frozen_weight_is_rounded_as_conversion_rounds_it(backend: str) -> None:
    network, kernels = NETWORKS["residual"], BACKENDS[backend]
    observed = calibrated(network, kernels)
    next(observed.parameters()).requires_grad_(requires_grad=False)
    expected = convert(copy.deepcopy(observed), kernels.backend_config())

    student = Student(observed)

    assert len(student.names) < len(Student(calibrated(network, kernels)).names)
    with torch.no_grad():
        assert torch.equal(flat(student(*network.inputs(9))[0]), flat(expected(*network.inputs(9))))
