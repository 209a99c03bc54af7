"""What a recipe changes about another, as the keys of a configuration."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from qgate.config.model import ObserverConfig, Place, QuantizationConfig
from qgate.engine.tuning.candidates import complexity, settings, stages
from qgate.plugins import load_registry

PLAIN = QuantizationConfig(Place(Path("qgate.toml"), 1))


def test_only_what_differs_is_said() -> None:
    changed = replace(PLAIN, backend="x86", ignored_scope=("head.*",), reduce_range=True)

    assert settings(PLAIN, changed) == {
        "backend": "x86",
        "ignored_scope": ["head.*"],
        "activation": {"reduce_range": True},
    }


def test_options_of_the_former_observer_go() -> None:
    before = replace(PLAIN, activation=ObserverConfig("moving_average", {"averaging_constant": 0.1}))
    after = replace(PLAIN, activation=ObserverConfig("histogram", {"bins": 64}))

    assert settings(before, after) == {"activation": {"observer": "histogram", "averaging_constant": None, "bins": 64}}


def test_the_more_a_recipe_says_the_more_complex_it_is_whatever_its_backend() -> None:
    weight = replace(PLAIN, weight=ObserverConfig("per_tensor_minmax"))

    assert complexity(PLAIN) == complexity(replace(PLAIN, backend="onednn")) == 0
    assert 0 < complexity(weight) < complexity(replace(weight, calibrator="first"))


def test_every_registered_observer_calibrator_and_backend_of_this_machine_is_tried() -> None:
    registry = load_registry()
    recipes = [change.applied(PLAIN) for changes in stages(registry, "fbgemm") for change in changes]

    assert {recipe.calibrator for recipe in recipes} == set(registry.calibrators)
    assert {recipe.activation.observer for recipe in recipes} | {recipe.weight.observer for recipe in recipes} == set(
        registry.observers
    )
    assert {True} <= {recipe.bias_correction for recipe in recipes} & {recipe.equalization for recipe in recipes}
    assert "gptq" in {recipe.weight_rounding for recipe in recipes}
    assert {"fbgemm", "x86", "onednn"} <= {recipe.backend for recipe in recipes} <= set(registry.backends)


def test_another_runtime_is_not_tried() -> None:
    registry = load_registry()

    def tried(backend: str) -> set[str]:
        return {change.applied(PLAIN).backend for change in next(iter(stages(registry, backend)))}

    assert tried("onnxruntime") == {"onnxruntime"}
    assert tried("openvino") == {"openvino"}
    assert not tried("fused") & {"onnxruntime", "openvino"}
