"""A calibrated int8 model from a float32 one (post-training quantization)."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from qgate.engine.calibrate import calibrate, select_samples
from qgate.engine.correct import correct_graph, corrects
from qgate.engine.digest import relevant
from qgate.errors import QuantizationError
from qgate.quantization.prepare import Recipe, convert, prepare

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import torch

    from qgate.config.model import ModelConfig, TrainingConfig
    from qgate.engine.load import Inputs
    from qgate.engine.progress import Progress, StepClock
    from qgate.plugins import Registry
    from qgate.protocols import Backend, Dataset, LoadedModel

__all__ = [
    "Calibration",
    "Plan",
    "as_configured",
    "available_backend",
    "choose_calibration",
    "describe",
    "quantize",
    "quantize_by",
    "resolve",
    "said_of_recipe",
    "with_ignored",
    "without_training",
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
        float_summands=getattr(backend, "float_summands", False),
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
    training = {"training": _plain(said.training)} if said.approach == "qat" else {}
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
        **training,
    }


def _plain(training: TrainingConfig) -> dict[str, Any]:
    """Give a training's settings as JSON gives them back."""
    settings: dict[str, Any] = json.loads(json.dumps(asdict(replace(training, place=None))))
    del settings["place"]
    return settings


def said_of_recipe(config: ModelConfig, recipe: Recipe) -> dict[str, Any]:
    """Give all that the outcome of a recipe depends on: as it is configured, and what that is on this machine."""
    resolved = [recipe.reduce_range, recipe.float_outputs, recipe.float_summands]
    return {**relevant(config.quantization), "as": resolved}


def with_ignored(config: ModelConfig, names: Sequence[str]) -> ModelConfig:
    """Give a configuration whose recipe keeps these modules float as well."""
    said = config.quantization
    return replace(config, quantization=replace(said, ignored_scope=(*said.ignored_scope, *names)))


def without_training(config: ModelConfig) -> ModelConfig:
    """Give a configuration whose recipe is the same but for the training."""
    return replace(config, quantization=replace(config.quantization, approach="ptq"))


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
    plan = Plan.of(config, registry, inputs.loaded)
    with clock.step("quantize"):
        observed = plan.observed(inputs.loaded)
    calibration.fill(observed, clock)
    with clock.step("quantize"):
        reference = plan.converted(observed)
    if corrects(plan.recipe):
        correct_graph(reference, config.quantization, inputs, chosen, clock)
    return reference, plan.recipe


@dataclass(frozen=True)
class Plan:
    """A recipe as resolved, and its backend, which says where observers belong."""

    recipe: Recipe
    backend: Backend

    @classmethod
    def of(cls, config: ModelConfig, registry: Registry, loaded: LoadedModel) -> Plan:
        """Resolve a recipe. Raises `QuantizationError`."""
        backend = available_backend(config, registry)
        return cls(resolve(config, registry, backend, loaded.byte_scale), backend)

    def observed(self, loaded: LoadedModel) -> torch.fx.GraphModule:
        """Insert observers, not yet filled. Raises `TraceError`, `QuantizationError`."""
        return prepare(loaded.module, self.recipe, self.backend.backend_config(), loaded.example_inputs)

    def converted(self, observed: torch.fx.GraphModule) -> torch.fx.GraphModule:
        """Turn a calibrated or trained graph into the reference graph, as the backend wants it."""
        reference = convert(observed, self.backend.backend_config())
        return self.backend.refine(reference) if hasattr(self.backend, "refine") else reference
