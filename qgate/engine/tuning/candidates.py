"""Which recipes there are to try, what each changes, and how it reads in `qgate.toml`."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, get_args

from qgate.config.model import FallbackConfig, ObserverConfig, QuantizationConfig, WeightRounding

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qgate.plugins import Registry

__all__ = ["Change", "complexity", "fallback", "settings", "stages"]

_OBSERVERS = ("activation", "weight")
_KEPT = ("place", "approach", "non_traceable", "fallback", "training")  # a search changes none, or only adds it
_MAX_FLOAT_LAYERS = 3  # with more, another recipe is the better advice


@dataclass(frozen=True)
class Change:
    """One change of a recipe: what to call it, and the fields of `QuantizationConfig` that it sets."""

    label: str
    fields: dict[str, Any]

    def applied(self, recipe: QuantizationConfig) -> QuantizationConfig:
        """Give the recipe with the change."""
        return replace(recipe, **self.fields)


_CORRECTIONS = (
    Change("bias correction", {"bias_correction": True}),
    Change("no bias correction", {"bias_correction": False}),
    Change("equalization", {"equalization": True}),
    Change("equalization, bias correction", {"equalization": True, "bias_correction": True}),
    Change("GPTQ, bias correction", {"weight_rounding": "gptq", "bias_correction": True}),
)


def stages(registry: Registry, backend: str) -> Iterator[list[Change]]:
    """List what may be changed about a recipe, one list a question, those first that cost least to answer.

    Backends that were registered last are the fastest of the core's, and plugins'. Where what ships runs is the user's
    to say: a runtime is not exchanged for another.
    """
    shipped = _ships(backend, registry)
    names = [name for name in reversed(list(registry.backends)) if _ships(name, registry) == shipped]
    backends = [name for name in names if _runs(name, registry)]
    yield [Change(f"backend {name}", {"backend": name}) for name in backends]
    yield list(_CORRECTIONS)
    yield _observers("activation", registry)
    yield _observers("weight", registry)
    yield [Change(f"calibrator {name}", {"calibrator": name}) for name in registry.calibrators]
    yield [Change("range auto", {"reduce_range": "auto"})]
    yield [Change("equalization", {"equalization": True})]
    yield [Change("bias correction" if on else "no bias correction", {"bias_correction": on}) for on in (True, False)]
    yield [Change(f"rounding {name}", {"weight_rounding": name}) for name in get_args(WeightRounding)]


def fallback(recipe: QuantizationConfig) -> Change:
    """Give the last change: the fewest layers float that the file's limits on accuracy need, as many as it allows."""
    return Change("fallback", {"fallback": FallbackConfig(recipe.fallback.max_layers or _MAX_FLOAT_LAYERS)})


def _ships(backend: str, registry: Registry) -> tuple[str, str] | None:
    """Name the runtime that is deployed, and its file; None where that is torch."""
    kind: Any = registry.backends.get(backend)
    return (backend, kind.exporter) if hasattr(kind, "exporter") else None


def _runs(backend: str, registry: Registry) -> bool:
    return registry.backends.get(backend)().is_available() is None


def _observers(role: str, registry: Registry) -> list[Change]:
    """Give every observer of a role, with its own options and with those that it names as worth trying."""
    return [
        Change(f"{role} {_spelt(name, options)}", {role: ObserverConfig(name, options)})
        for name in registry.observers
        if registry.observers.get(name).role == role
        for options in ({}, *registry.observers.get(name).alternatives)
    ]


def _spelt(name: str, options: dict[str, Any]) -> str:
    return " ".join([name, *(f"{value}" if key == name else f"{key} {value}" for key, value in options.items())])


def complexity(recipe: QuantizationConfig) -> int:
    """Count the settings that differ from a recipe that says nothing but its backend."""
    plain = QuantizationConfig(recipe.place, backend=recipe.backend)
    changed = settings(plain, recipe)
    return sum(len(value) if isinstance(value, dict) else 1 for value in changed.values())


def settings(before: QuantizationConfig, after: QuantizationConfig) -> dict[str, Any]:
    """Give the keys of `[models.X.quantization]` that turn one recipe into another; None says that a key goes."""
    changed: dict[str, Any] = {}
    for name in (item.name for item in fields(QuantizationConfig) if item.name not in _KEPT):
        old, new = getattr(before, name), getattr(after, name)
        if old == new:
            continue
        if name in _OBSERVERS:
            changed.setdefault(name, {}).update(_observer_settings(old, new))
        elif name == "reduce_range":
            changed.setdefault("activation", {})[name] = new
        else:
            changed[name] = list(new) if isinstance(new, tuple) else new
    if after.fallback.max_layers and after.fallback != before.fallback:
        changed["fallback"] = {"max_layers": after.fallback.max_layers}
    return changed


def _observer_settings(old: ObserverConfig, new: ObserverConfig) -> dict[str, Any]:
    gone = dict.fromkeys(old.options)
    observer = {} if old.observer == new.observer else {"observer": new.observer}
    return {**observer, **gone, **new.options}
