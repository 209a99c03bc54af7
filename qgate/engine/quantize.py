"""A calibrated int8 model from a float32 one (post-training quantization)."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from qgate.engine.calibrate import calibrate, select_samples
from qgate.engine.correct import correct_graph, corrects
from qgate.errors import QuantizationError
from qgate.quantization.prepare import Recipe, convert, prepare

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import torch

    from qgate.config.model import ModelConfig
    from qgate.engine.load import Inputs
    from qgate.engine.progress import Progress, StepClock
    from qgate.plugins import Registry
    from qgate.protocols import Backend, Dataset, LoadedModel

__all__ = [
    "Calibration",
    "as_configured",
    "available_backend",
    "choose_calibration",
    "describe",
    "quantize",
    "quantize_by",
    "resolve",
    "with_ignored",
]


def available_backend(config: ModelConfig, registry: Registry) -> Backend:
    """Give the backend that the recipe names. Raises `QuantizationError` where this machine cannot run it."""
    backend = registry.backends.get(config.quantization.backend)()
    reason = backend.is_available()
    if reason:
        raise QuantizationError(f'[models.{config.name}.quantization] backend "{backend.name}": {reason}')
    return backend


def resolve(config: ModelConfig, registry: Registry, backend: Backend, byte_scale: float | None = None) -> Recipe:
    """Turn the configured names into observers, and `reduce_range = "auto"` into what this CPU's kernels need.

    Raises `QuantizationError` where an observer refuses its options.
    """
    said = config.quantization
    recipe = Recipe(
        activation=registry.observers.get(said.activation.observer),
        weight=registry.observers.get(said.weight.observer),
        reduce_range=backend.needs_reduced_range() if said.reduce_range == "auto" else said.reduce_range,
        activation_options=said.activation.options,
        weight_options=said.weight.options,
        ignored_scope=said.ignored_scope,
        non_traceable=said.non_traceable,
        byte_scale=byte_scale,
        float_outputs=getattr(backend, "float_outputs", False),
        equalization=said.equalization,
        weight_rounding=said.weight_rounding,
        bias_correction=said.bias_correction,
    )
    _check_options(config, recipe.activation, recipe.activation_options)
    _check_options(config, recipe.weight, recipe.weight_options)
    return recipe


def _check_options(config: ModelConfig, observer: Any, options: dict[str, Any]) -> None:
    try:
        observer(**options)
    except Exception as error:  # a plugin's constructor may raise anything
        place = config.quantization.place
        raise QuantizationError(
            f'[models.{config.name}.quantization] {observer.role} observer "{observer.name}" refuses options: {error}',
            path=place.path,
            line=place.line,
        ) from error


def describe(config: ModelConfig, recipe: Recipe, num_samples: int, seed: int) -> dict[str, Any]:
    """Give the recipe as it was resolved, JSON-able, for results and artifact."""
    said = config.quantization
    fallback = {"fallback": {"max_layers": said.fallback.max_layers}} if said.fallback.max_layers else {}
    return {
        "approach": said.approach,
        "backend": said.backend,
        "calibrator": said.calibrator,
        "num_samples": num_samples,
        "activation": {"observer": said.activation.observer, **said.activation.options},
        "weight": {"observer": said.weight.observer, **said.weight.options},
        "reduce_range": recipe.reduce_range,
        "equalization": recipe.equalization,
        "weight_rounding": recipe.weight_rounding,
        "bias_correction": recipe.bias_correction,
        "ignored_scope": list(recipe.ignored_scope),
        "non_traceable": list(recipe.non_traceable),
        "seed": seed,
        **fallback,
    }


def with_ignored(config: ModelConfig, names: Sequence[str]) -> ModelConfig:
    """Give a configuration whose recipe keeps these modules float as well."""
    said = config.quantization
    return replace(config, quantization=replace(said, ignored_scope=(*said.ignored_scope, *names)))


def as_configured(described: dict[str, Any]) -> dict[str, Any]:
    """Give a recipe as `describe` gave it, before a fallback added to what it ignores."""
    found = described.get("fallback", {})
    if "ignored_scope" not in found:
        return described
    ignored = described["ignored_scope"]
    configured = ignored[: len(ignored) - len(found["ignored_scope"])]
    return {**described, "ignored_scope": configured, "fallback": {"max_layers": found["max_layers"]}}


def choose_calibration(config: ModelConfig, registry: Registry, inputs: Inputs, seed: int) -> list[int]:
    """Let the recipe's calibrator choose among the calibration data. Raises `DataError` where it chooses nothing."""
    calibrator = registry.calibrators.get(config.quantization.calibrator)()
    wanted = config.data.calibration.num_samples or len(inputs.calibration)
    return select_samples(calibrator, inputs.calibration, wanted, seed)


@dataclass(frozen=True)
class Calibration:
    """The samples that a model is calibrated on, and how its observers come to know them: `show` shows them."""

    inputs: Inputs
    chosen: Sequence[int]
    show: Callable[[torch.fx.GraphModule, LoadedModel, Dataset, Sequence[int], Progress], None] = field(
        default=calibrate, kw_only=True
    )

    def fill(self, observed: torch.fx.GraphModule, clock: StepClock) -> None:
        """Show the samples to the observers. Raises `DataError`, `ModelError`."""
        with clock.step("calibrate", len(self.chosen)) as progress:
            self.show(observed, self.inputs.loaded, self.inputs.calibration, self.chosen, progress)


def quantize(
    config: ModelConfig, registry: Registry, inputs: Inputs, chosen: Sequence[int], clock: StepClock
) -> tuple[torch.fx.GraphModule, Recipe]:
    """Give the int8 reference graph, calibrated on the chosen samples, and the recipe as resolved.

    Raises `TraceError`, `QuantizationError`, `DataError`.
    """
    return quantize_by(Calibration(inputs, chosen), config, registry, clock)


def quantize_by(
    calibration: Calibration, config: ModelConfig, registry: Registry, clock: StepClock
) -> tuple[torch.fx.GraphModule, Recipe]:
    """Give the same, calibrated in a way of its own."""
    inputs, chosen = calibration.inputs, calibration.chosen
    backend = available_backend(config, registry)
    recipe = resolve(config, registry, backend, inputs.loaded.byte_scale)
    with clock.step("quantize"):
        observed = prepare(inputs.loaded.module, recipe, backend.backend_config(), inputs.loaded.example_inputs)
    calibration.fill(observed, clock)
    with clock.step("quantize"):
        reference = convert(observed, backend.backend_config())
    if corrects(recipe):
        correct_graph(reference, config.quantization, inputs, chosen, clock)
    return reference, recipe
