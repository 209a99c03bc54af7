"""Which layer makes an int8 model go wrong, with its figures and what to do about it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch

from qgate.engine.artifact import load_reference, read_header
from qgate.engine.evaluate import brief
from qgate.engine.tensors import tensors_of
from qgate.quantization.layers import float_graph, kernel_errors, layer_errors, signal_to_noise

if TYPE_CHECKING:
    from pathlib import Path

    from qgate.plugins import Registry
    from qgate.quantization.layers import FloatGraph, LayerError

__all__ = ["blame"]

# dB of a layer by itself: in the examples' networks, healthy ones keep more than 20, those with a fault less than 6.
_BAD = 6.0
# dB of the lowered graph's output against the reference graph's, which differ by roundings.
_DIFFERENT = 15.0


def blame(
    module: torch.nn.Module, inputs: tuple[torch.Tensor, ...], int8: Any, artifact: Path, registry: Registry
) -> str:
    """Say which layer of an artifact is the first to go wrong on a batch of inputs.

    `int8` is what the lowered artifact gave for them, `module` the float32 model. Each layer of the reference graph is
    held against float32 by itself; where all are sound, the lowered graph is held against the reference graph.
    """
    try:
        return _blame(module, inputs, int8, artifact, registry)
    except Exception as error:  # noqa: BLE001  # the collapse must be told of, whatever the search runs into
        return f"which layer is to blame could not be found out ({brief(error)})"


def _blame(
    module: torch.nn.Module, inputs: tuple[torch.Tensor, ...], int8: Any, artifact: Path, registry: Registry
) -> str:
    recipe = read_header(artifact)["quantization"]
    backend = registry.backends.get(recipe["backend"])()
    equalized = inputs if recipe.get("equalization") else None
    floats = float_graph(module, backend.backend_config(), recipe["non_traceable"], equalized)
    reference = load_reference(artifact)
    errors = layer_errors(floats, reference, inputs)
    bad = next((error for error in errors if not error.finite), None) or next(filter(_is_bad, errors), None)
    if bad:
        return f"first to go wrong is {_say(bad)}"
    with torch.no_grad():
        outputs = reference(*(value.clone() for value in inputs))
    if any(signal_to_noise(*pair) < _DIFFERENT for pair in zip(tensors_of(outputs), tensors_of(int8), strict=False)):
        return _say_kernels(backend, floats, artifact, inputs)
    return f"no layer is bad by itself, the errors of many add up; the worst is {_describe(min(errors, key=_snr))}"


def _is_bad(error: LayerError) -> bool:
    return not error.finite or error.snr < _BAD


def _snr(error: LayerError) -> float:
    return math.inf if math.isnan(error.snr) else error.snr


def _say(error: LayerError) -> str:
    return f"{_describe(error)}; {_remedy(error)}"


def _describe(error: LayerError) -> str:
    if error.span is None:
        left = f"keeps {error.snr:.1f} dB of its output" if error.finite else "gives NaN or infinite values"
        return f'"{error.layer}": with its int8 weights it {left}'
    low, high = error.span
    return (
        f'the quantization behind "{error.layer}": float32\'s values span {low:.4g} to {high:.4g}, and with scale '
        f"{error.scale:.4g} and zero point {error.zero_point}, {error.clipped:.0%} of them are clipped and "
        f"{error.snr:.1f} dB are kept"
    )


def _remedy(error: LayerError) -> str:
    if error.span is None:
        return f'look at its weights and their observer, or keep it float: ignored_scope = ["{error.layer}"]'
    if not error.finite:
        return "the artifact is damaged: export the model again"
    if error.clipped:
        return "the range is too narrow: calibrate on more samples, or with an activation observer that clips less"
    return "the range is too wide: look for outliers in the calibration data, or use the histogram observer"


def _say_kernels(backend: Any, floats: FloatGraph, artifact: Path, inputs: tuple[torch.Tensor, ...]) -> str:
    """Say which layer of the lowered graph, where the backend shows it, is first to differ from the reference graph."""
    blamed = f'every layer of the reference graph is sound; the kernels of backend "{backend.name}" are to blame'
    remedy = "use another backend, or reduce_range = true"
    if not hasattr(backend, "lower_graph"):
        return f"{blamed}; {remedy}"
    lowered = backend.lower_graph(load_reference(artifact))
    bad = next(filter(_is_bad, kernel_errors(floats, load_reference(artifact), lowered, inputs)), None)
    where = f', first in "{bad.layer}" ({bad.snr:.1f} dB against the reference)' if bad else ", once they are frozen"
    return f"{blamed}{where}; {remedy}"
