"""Fake quantization: a calibrated graph that computes in float32 what int8 will, and whose weights can be trained."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import torch
from torch.ao.quantization.observer import FixedQParamsObserver, ObserverBase
from torch.func import functional_call

from qgate.quantization.called import called_modules
from qgate.quantization.observers import ActivationObserver, ByteObserver
from qgate.quantization.prepare import quiet_torch_ao
from qgate.quantization.ranges import KnownObserver
from qgate.quantization.readers import is_multiplication
from qgate.quantization.watch import Watch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

__all__ = ["Student"]

_LEVELS = 255  # between the least and the greatest value of quint8, which is what a reference graph clips to
_LEAST_SHARE = 1e-3  # of the scale that calibration found: training may not turn one around


class Student(torch.nn.Module):
    """A calibrated graph, fake-quantized, with its weights and the scales of its activations as parameters.

    Parameters are relative: a weight is trained as a share of the greatest in its output channel, any other as a share
    of its tensor's, a scale as one of what calibration found. So one learning rate fits layers of any magnitude.
    Weights are quantized by their observers' scales, found anew each time, which is what conversion does. Batch norms
    are those of the calibrated graph: folded into layers, or with the statistics that they have.

    `forward` gives the raw outputs, and those of the modules that `watched` names. `observed` is changed.
    """

    def __init__(self, observed: torch.fx.GraphModule, watched: Sequence[str] = ()) -> None:
        super().__init__()
        self.graph = observed.eval()
        self._observers = {
            name: item for name, item in called_modules(observed).items() if isinstance(item, ObserverBase)
        }
        self._layers = dict(_weight_observers(observed))
        # One observer may have several names, as that of all inputs of a concatenation: they keep one scale.
        fakes = {id(observer): _fake(observer) for observer in self._observers.values()}
        for name, observer in self._observers.items():
            observed.set_submodule(name, fakes[id(observer)])
        used = _used(observed)
        trained = {name: value for name, value in used.items() if value.requires_grad}
        observed.requires_grad_(requires_grad=False)
        self.names = tuple(trained)
        units = [self._unit(name, value.detach()) for name, value in trained.items()]
        self._units = _Buffers(units)
        self.relative = torch.nn.ParameterList(
            value.detach() / unit for value, unit in zip(trained.values(), units, strict=True)
        )
        self._watch = Watch(observed, watched)

    def is_scale(self, name: str) -> bool:
        """Say whether one of `names` is the scale of an activation."""
        return name.rpartition(".")[0] in self._observers

    def forward(self, *inputs: torch.Tensor) -> tuple[Any, tuple[torch.Tensor, ...]]:
        """Run the fake-quantized graph on a batch."""
        with quiet_torch_ao(), self._watch as found:
            values = dict(self._values())
            for name, make in self._layers.items():
                weight = values.get(name, self.graph.get_parameter(name))  # one that the user froze is rounded, too
                values[name] = _rounded(weight, make())
            outputs = functional_call(self.graph, values, tuple(value.clone() for value in inputs))
            return outputs, tuple(found.values())

    def freeze_scales(self) -> None:
        """Leave the scales of activations as they are from now on."""
        for module in self.graph.modules():
            if isinstance(module, _FakeQuantize):
                module.is_frozen = True

    def take(self, relative: Sequence[torch.Tensor]) -> None:
        """Take values for all parameters, in the order of `names`."""
        with torch.no_grad():
            for value, taken in zip(self.relative, relative, strict=True):
                value.copy_(taken)

    def calibrated(self, example_inputs: tuple[torch.Tensor, ...]) -> torch.fx.GraphModule:
        """Give a copy of the graph as calibration leaves it, with the trained weights and ranges, ready to convert."""
        graph = copy.deepcopy(self.graph).cpu()
        parameters = dict(graph.named_parameters())
        with torch.no_grad(), quiet_torch_ao():
            for name, value in self._values():
                parameters[name].copy_(value)
            for name, observer in self._observers.items():
                graph.set_submodule(name, _known(graph.get_submodule(name), observer))
            graph(*(value.clone() for value in example_inputs))  # what observes weights in the graph sees those trained
        return graph

    def _values(self) -> Iterator[tuple[str, torch.Tensor]]:
        for name, unit, value in zip(self.names, self._units.buffers(), self.relative, strict=True):
            yield name, unit * value

    def _unit(self, name: str, value: torch.Tensor) -> torch.Tensor:
        """Give the power of two below the greatest value, of each output channel where it is a layer's weight.

        By powers of two nothing is rounded: before a step is taken, the graph is bit for bit the calibrated one.
        """
        greatest = value.abs().amax() if value.numel() else value.new_ones(())
        if name in self._layers:
            axis = int(getattr(self._layers[name](), "ch_axis", 0))
            by_channel = value.abs().amax([each for each in range(value.ndim) if each != axis], keepdim=True)
            greatest = torch.where(by_channel > 0, by_channel, greatest)
        return torch.exp2(torch.floor(torch.log2(torch.where(greatest > 0, greatest, 1.0))))


def _weight_observers(observed: torch.fx.GraphModule) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Give the weights of layers that become int8 ones, by name, each with what makes its observer."""
    for name, module in called_modules(observed).items():
        qconfig = getattr(module, "qconfig", None)
        if qconfig is not None and is_multiplication(module):
            is_fused = isinstance(module, torch.nn.Sequential)
            yield f"{name}.0.weight" if is_fused else f"{name}.weight", qconfig.weight


def _used(graph: torch.fx.GraphModule) -> dict[str, torch.nn.Parameter]:
    """Give the parameters that a graph's result depends on, as far as its nodes tell."""
    attributes = {str(node.target) for node in graph.graph.nodes if node.op == "get_attr"}
    modules = tuple(f"{name}." for name in called_modules(graph))
    return {
        name: value for name, value in graph.named_parameters() if name in attributes or f"{name}.".startswith(modules)
    }


def _fake(observer: Any) -> torch.nn.Module:
    """Give what computes as int8 will, in the place of an observer."""
    if isinstance(observer, ActivationObserver | FixedQParamsObserver):
        return _FakeQuantize(observer)
    return _FakeWeight(observer) if observer.dtype == torch.qint8 else observer


def _known(fake: torch.nn.Module, observer: ObserverBase) -> torch.nn.Module:
    """Give the observer that would have found what was trained."""
    if isinstance(fake, _FakeQuantize) and isinstance(observer, ActivationObserver):
        return KnownObserver(fake.found(), observer)
    return copy.deepcopy(observer)


class _FakeQuantize(torch.nn.Module):
    """Rounds activations to int8's steps; gradients pass to the values that are in range, and to the scale.

    A reduced range does not shrink: values beyond it would be right here, and saturate in a kernel.
    """

    least: torch.Tensor
    zero_point: torch.Tensor

    def __init__(self, observer: Any) -> None:
        super().__init__()
        scale, zero_point = observer.calculate_qparams()
        learns = isinstance(observer, ActivationObserver) and not isinstance(observer, ByteObserver)
        is_reduced = learns and observer.levels < _LEVELS
        scale = scale.detach().reshape(1).float()
        self.scale = torch.nn.Parameter(scale.clone(), requires_grad=learns)
        self.register_buffer("zero_point", zero_point.detach().reshape(1).to(torch.int32).clone())
        self.register_buffer("least", scale * (1.0 if is_reduced else _LEAST_SHARE))
        self.is_frozen = not learns

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scale = torch.maximum(self.scale, self.least)
        result: torch.Tensor = _Rounding.apply(x, scale, int(self.zero_point), self.is_frozen)  # type: ignore[no-untyped-call]
        return result

    def found(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Give scale and zero point."""
        return torch.maximum(self.scale, self.least).detach(), self.zero_point


class _FakeWeight(torch.nn.Module):
    """Rounds a weight that a function reads, in the place of its observer."""

    def __init__(self, observer: Any) -> None:
        super().__init__()
        self._observer = observer

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        return _rounded(weight, copy.deepcopy(self._observer))


class _Rounding(torch.autograd.Function):
    """What the reference graph does to an activation, and gradients as if it did not round.

    The scale's gradient is that of Esser et al., "Learned Step Size Quantization" (2020). torch's own function for this
    takes five times as long on a CPU.
    """

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, scale: torch.Tensor, zero_point: int, is_frozen: bool) -> torch.Tensor:
        ctx.save_for_backward(x)
        ctx.step, ctx.zero_point, ctx.is_frozen = float(scale), zero_point, is_frozen
        return _as_int8(x, ctx.step, zero_point)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, None, None]:
        (x,) = ctx.saved_tensors
        least, greatest = (-ctx.zero_point - 0.5) * ctx.step, (_LEVELS - ctx.zero_point + 0.5) * ctx.step
        inside = torch.ops.aten.hardtanh_backward(gradient, x, least, greatest)
        if ctx.is_frozen:
            return inside, gradient.new_zeros(1), None, None
        rounded = _as_int8(x, ctx.step, ctx.zero_point)  # anew: what was given may have been changed in place
        of_scale = _dot(gradient, rounded - x) + _dot(gradient - inside, x)
        return inside, of_scale.reshape(1) / (ctx.step * (x.numel() * _LEVELS) ** 0.5), None, None


def _as_int8(x: torch.Tensor, step: float, zero_point: int) -> torch.Tensor:
    return torch.quantize_per_tensor(x, step, zero_point, torch.quint8).dequantize()


def _dot(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    return torch.dot(left.reshape(-1), right.reshape(-1))


def _rounded(weight: torch.Tensor, observer: Any) -> torch.Tensor:
    """Round a weight to the steps that an observer finds in it, as conversion does."""
    observer.to(weight.device)
    with torch.no_grad():
        observer(weight.detach())
        scale, zero_point = observer.calculate_qparams()
    limits = observer.quant_min, observer.quant_max
    if observer.qscheme in {torch.per_channel_symmetric, torch.per_channel_affine}:
        zero_points = zero_point.to(torch.int32)
        return torch.fake_quantize_per_channel_affine(weight, scale, zero_points, observer.ch_axis, *limits)
    return torch.fake_quantize_per_tensor_affine(
        weight, scale.reshape(1), zero_point.reshape(1).to(torch.int32), *limits
    )


class _Buffers(torch.nn.Module):
    """Tensors that move with their module."""

    def __init__(self, values: Sequence[torch.Tensor]) -> None:
        super().__init__()
        for index, value in enumerate(values):
            self.register_buffer(str(index), value)
