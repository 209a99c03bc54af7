"""Float module -> observed graph -> reference graph."""

from __future__ import annotations

import contextlib
import copy
import difflib
import fnmatch
import traceback
import warnings
from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.ao.quantization import QConfig, get_default_qconfig_mapping
from torch.ao.quantization.fx.custom_config import PrepareCustomConfig
from torch.ao.quantization.observer import FixedQParamsObserver
from torch.ao.quantization.quantize_fx import convert_to_reference_fx, prepare_fx

from qgate.errors import QuantizationError, TraceError
from qgate.quantization.corrections.equalization import equalize
from qgate.quantization.observers import REDUCED_ACTIVATION, WeightObserver
from qgate.quantization.readers import (
    leave_outputs_float,
    leave_summands_float,
    read_overwritten,
    read_through,
    reduce_activations,
    share_scales,
    take_bytes,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch.ao.quantization.backend_config import BackendConfig

    from qgate.config.model import WeightRounding
    from qgate.quantization.observers import Observer

_TORCH = Path(torch.__file__).parent
_CONVOLUTION = {"input": None, "weight": None, "bias": None, "stride": 1, "padding": 0, "dilation": 1, "groups": 1}
_TRANSPOSED = {
    "input": None,
    "weight": None,
    "bias": None,
    "stride": 1,
    "padding": 0,
    "output_padding": 0,
    "groups": 1,
    "dilation": 1,
}
# The names in torch.nn.functional are these very functions. Each has its number of dimensions and its arguments.
_CONVOLUTIONS: dict[Any, tuple[int, dict[str, int | None]]] = {
    torch.conv1d: (1, _CONVOLUTION),
    torch.conv2d: (2, _CONVOLUTION),
    torch.conv3d: (3, _CONVOLUTION),
    torch.conv_transpose1d: (1, _TRANSPOSED),
    torch.conv_transpose2d: (2, _TRANSPOSED),
    torch.conv_transpose3d: (3, _TRANSPOSED),
}


@dataclass(frozen=True)
class Recipe:
    """How to quantize: observers with their options, and what stays float.

    `reduce_range` keeps products of two 8-bit values small enough for kernels that add two of them in 16 bits. Patterns
    are shell-style and match names of modules and of all that is in them. With `byte_scale`, inputs are bytes times
    it. With `float_outputs` the last layers' results are not quantized, with `float_summands` neither are summands, and
    what only moves values keeps their scale.
    The last three are corrections: `prepare` equalizes, the others change a reference graph.
    """

    activation: type[Observer]
    weight: type[Observer]
    reduce_range: bool
    activation_options: dict[str, Any] = field(default_factory=dict)
    weight_options: dict[str, Any] = field(default_factory=dict)
    ignored_scope: tuple[str, ...] = ()
    non_traceable: tuple[str, ...] = ()
    byte_scale: float | None = None
    float_outputs: bool = False
    float_summands: bool = False
    equalization: bool = False
    weight_rounding: WeightRounding = "nearest"
    bias_correction: bool = False


def prepare(
    module: torch.nn.Module, recipe: Recipe, config: BackendConfig, example_inputs: tuple[torch.Tensor, ...]
) -> torch.fx.GraphModule:
    """Fold batch norms and insert observers where the backend wants them; `module` is left as it was.

    Raises `TraceError` where FX cannot trace a module, `QuantizationError` where a pattern matches no module.
    """
    ignored = matching(module, recipe.ignored_scope, "ignored_scope")
    custom = PrepareCustomConfig().set_non_traceable_module_names(
        matching(module, recipe.non_traceable, "non_traceable")
    )
    mapping = _qconfig_mapping(recipe, config)
    clone = copy.deepcopy(module).eval()
    for name in (*ignored, *_plain_padding(clone)):
        mapping.set_module_name(name, None)
    with quiet_torch_ao(), _trace_errors(clone):
        prepared = prepare_fx(clone, mapping, example_inputs, prepare_custom_config=custom, backend_config=config)
    _check_folding(prepared, module)
    read_overwritten(prepared)
    if recipe.equalization:
        equalize(prepared, example_inputs)
    if recipe.float_summands:
        share_scales(prepared)
    if recipe.float_outputs:
        leave_outputs_float(prepared)
    if recipe.float_summands:
        leave_summands_float(prepared, example_inputs)
    read_through(prepared)
    if recipe.reduce_range:
        reduce_activations(prepared)
    if recipe.byte_scale:
        take_bytes(prepared, recipe.byte_scale, partial(_weight_observer, recipe, activation=255))
    return prepared


def _plain_padding(module: torch.nn.Module) -> list[str]:
    """Write out convolutions' paddings as numbers; give the names of those of which no int8 form is right."""
    without: list[str] = []
    for name, layer in module.named_modules():
        if not isinstance(layer, torch.nn.Conv1d | torch.nn.Conv2d | torch.nn.Conv3d):
            continue
        if layer.padding == "valid":
            layer.padding = (0,) * len(layer.kernel_size)
        around = [dilation * (size - 1) for dilation, size in zip(layer.dilation, layer.kernel_size, strict=True)]
        if layer.padding == "same" and all(total % 2 == 0 for total in around):
            layer.padding = tuple(total // 2 for total in around)
        if isinstance(layer.padding, str) or layer.padding_mode != "zeros":
            without.append(name)
    return without


def convert(prepared: torch.fx.GraphModule, config: BackendConfig) -> torch.fx.GraphModule:
    """Turn a calibrated graph into the reference graph, with explicit quantize and dequantize nodes."""
    with quiet_torch_ao():
        reference = convert_to_reference_fx(prepared, backend_config=config)
    reshape_views(reference)
    _write_out_arguments(reference)
    _write_out_factors(reference)
    _keep_prelus(reference)
    reference.recompile()
    return reference


def reshape_views(graph_module: torch.fx.GraphModule) -> None:
    """Replace `view` by `reshape`: convolutions may put channels last in memory, and then `view` refuses."""
    for node in graph_module.graph.nodes:
        if node.op == "call_method" and node.target == "view" and not isinstance(node.args[-1], torch.dtype):
            node.target = "reshape"


def _write_out_arguments(reference: torch.fx.GraphModule) -> None:
    """Give functional convolutions all their arguments: the operators that pack weights know no defaults."""
    for node in reference.graph.nodes:
        if node.target in _CONVOLUTIONS:
            dimensions, arguments = _CONVOLUTIONS[node.target]
            given = {**arguments, **dict(zip(arguments, node.args, strict=False)), **node.kwargs}
            node.kwargs = {}
            node.args = tuple(
                [value] * dimensions if isinstance(value, int) and name != "groups" else value
                for name, value in given.items()
            )


def _write_out_factors(reference: torch.fx.GraphModule) -> None:
    """Turn the `alpha` of a sum into a multiplication: torch's lowering loses it."""
    for node in list(reference.graph.nodes):
        if node.target is torch.add and "alpha" in node.kwargs:
            right = node.kwargs.get("other", node.args[-1])
            with reference.graph.inserting_before(node):
                node.args = (node.args[0], reference.graph.call_function(torch.mul, (right, node.kwargs["alpha"])))
            node.kwargs = {}


def _keep_prelus(reference: torch.fx.GraphModule) -> None:
    """Call PReLU as a function, which stays float: torch's lowering of the module fails."""
    for node in list(reference.graph.nodes):
        if node.op == "call_module" and type(reference.get_submodule(node.target)) is torch.nn.PReLU:
            with reference.graph.inserting_before(node):
                weight = reference.graph.get_attr(f"{node.target}.weight")
            node.op, node.target, node.args = "call_function", torch.prelu, (*node.args, weight)


_DEPRECATIONS = r".*(torch\.ao|torch\.jit|observer|erase_node|quantized tensor creation).*"


@contextlib.contextmanager
def quiet_torch_ao() -> Iterator[None]:
    """Keep the deprecation warnings of torch.ao and torch.jit from users, who may have made warnings errors."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"torch\..*")
        warnings.filterwarnings("ignore", message=_DEPRECATIONS)
        warnings.filterwarnings("ignore", category=torch.jit.TracerWarning)  # type: ignore[attr-defined]  # it is public
        yield


def _qconfig_mapping(recipe: Recipe, config: BackendConfig) -> Any:
    """Take torch's rules for unquantizable weights and what has one range in `config`; the recipe for all others."""
    with quiet_torch_ao():
        mapping = get_default_qconfig_mapping("x86")
    default = mapping.global_qconfig
    assert default is not None  # noqa: S101  # torch's mapping always has one
    activation = partial(recipe.activation, **recipe.activation_options)
    weight = partial(_weight_observer, recipe)
    fixed = _of_one_range(config)
    for pattern, qconfig in list(mapping.object_type_qconfigs.items()):
        if qconfig is not None and qconfig.activation is default.activation:
            mapping.set_object_type(pattern, QConfig(activation=activation, weight=qconfig.weight))
        elif qconfig is not None and pattern not in fixed and isinstance(qconfig.activation(), FixedQParamsObserver):
            mapping.set_object_type(pattern, QConfig(activation=activation, weight=weight))
    return mapping.set_global(QConfig(activation=activation, weight=weight))


def _of_one_range(config: BackendConfig) -> set[Any]:
    """Give the operators whose kernels have one scale only, e.g. torch's sigmoid."""
    return {
        entry.pattern
        for entry in config.configs
        if any(dtypes.output_dtype_with_constraints.scale_exact_match for dtypes in entry.dtype_configs)
    }


def _weight_observer(recipe: Recipe, activation: int = REDUCED_ACTIVATION) -> Observer:
    observer = recipe.weight(**recipe.weight_options)
    if recipe.reduce_range and isinstance(observer, WeightObserver):
        observer.narrow(activation)
    return observer


def matching(module: torch.nn.Module, patterns: Sequence[str], key: str) -> list[str]:
    """List the submodules whose names match `patterns`. Raises `QuantizationError` where one matches none."""
    names = [name for name, _ in module.named_modules() if name]
    matched: list[str] = []
    for pattern in patterns:
        found = fnmatch.filter(names, pattern)
        if not found:
            close = difflib.get_close_matches(pattern, names, n=1, cutoff=0)
            hint = f'; the nearest module name is "{close[0]}"' if close else "; the model has no submodule"
            raise QuantizationError(f'{key} pattern "{pattern}" matches no module{hint}')
        matched += found
    return matched


def _check_folding(prepared: torch.fx.GraphModule, module: torch.nn.Module) -> None:
    """Refuse a convolution that torch folded batch norms into although it is called more than once.

    Each call would then have the batch norms of all: a wrong model, and no error.
    """
    calls = Counter(str(node.target) for node in prepared.graph.nodes if node.op == "call_module")
    originals = dict(module.named_modules())
    for name, count in calls.items():
        before, after = getattr(originals.get(name), "weight", None), getattr(_first(prepared, name), "weight", None)
        if count > 1 and before is not None and after is not None and not torch.equal(before, after):
            raise QuantizationError(
                f'module "{name}" is called {count} times with a batch norm behind it, which cannot be folded into one '
                "convolution; give each call a convolution of its own"
            )


def _first(prepared: torch.fx.GraphModule, name: str) -> torch.nn.Module:
    module = prepared.get_submodule(name)
    return module[0] if isinstance(module, torch.nn.Sequential) and len(module) else module


@contextlib.contextmanager
def _trace_errors(module: torch.nn.Module) -> Iterator[None]:
    """Turn whatever symbolic tracing raises into one line: the module, the line in it, and the way out."""
    try:
        yield
    except QuantizationError:
        raise
    except Exception as error:
        place = _deepest_module(module, error)
        said = f"{type(error).__name__}: {_first_line(error)}"
        if place is None:
            file, line = _deepest_frame(error) or (None, None)
            message = f"torch cannot prepare the model for quantization ({said})"
            raise QuantizationError(message, path=file, line=line) from error
        name, file, line = place
        what, way_out = (
            (
                f'module "{name}"',
                f'add "{name}" to `non_traceable` in [models.X.quantization] to keep it whole and float',
            )
            if name
            else ("the model itself", "move that line into a submodule and name it in `non_traceable`")
        )
        raise TraceError(
            f"FX cannot trace {what} ({said}); {way_out}, or move the untraceable part out of `forward`",
            path=file,
            line=line,
        ) from error


def _deepest_module(module: torch.nn.Module, error: Exception) -> tuple[str, Path, int] | None:
    """Find the innermost frame of the user's code that runs in a module: its name, file and line."""
    names = {id(child): name for name, child in module.named_modules()}
    found = None
    for frame, line in traceback.walk_tb(error.__traceback__):
        code, file = frame.f_code, Path(frame.f_code.co_filename)
        if _TORCH in file.parents:
            continue
        owner = frame.f_locals.get(code.co_varnames[0]) if code.co_argcount else None  # `self`, whatever its name
        # An observer is a module too, but none of the model's; and a function may be given a module.
        if id(owner) in names and hasattr(type(owner), code.co_name):
            found = (names[id(owner)], file, line)
    return found


def _deepest_frame(error: Exception) -> tuple[Path, int] | None:
    """Find the innermost line of a file that is neither ours nor installed beside torch."""
    others = {_TORCH.parent, Path(__file__).parents[1]}
    places = [(Path(frame.f_code.co_filename), line) for frame, line in traceback.walk_tb(error.__traceback__)]
    users = [(file, line) for file, line in places if file.is_file() and others.isdisjoint(file.parents)]
    return users[-1] if users else None


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
