from __future__ import annotations

import inspect
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from qgate import hookspecs, panels, protocols
from qgate.plugins import KINDS, load_registry
from qgate.quantization.observers import Observer

if TYPE_CHECKING:
    from collections.abc import Callable

DOCUMENT = " ".join((Path(__file__).parents[2] / "docs" / "plugins.md").read_text(encoding="utf-8").split())
SHOWN = ("Curves", "CurvePlot", "Line", "Gallery", "Picture", "Mark")
FIRST_PARTY = {"qgate", "classification", "detection", "observers", "onnx", "ray", "segmentation", "yolov5"}
HOOKS = {name: hook for name, hook in inspect.getmembers(hookspecs, inspect.isfunction) if name.startswith("qgate_")}
SEAMS = {name: cls for name in protocols.__all__ if getattr(cls := getattr(protocols, name), "_is_protocol", False)}


def signature(function: Callable[..., Any]) -> str:
    """Write a function as the code does, without `self` or `cls`."""
    found = inspect.signature(function)
    parameters = [item for name, item in found.parameters.items() if name not in {"self", "cls"}]
    return f"{function.__name__}{found.replace(parameters=parameters)}".replace("'", "")


def methods(cls: type) -> list[Callable[..., Any]]:
    """List what a protocol asks for, class methods as functions; not what `typing` put there."""
    functions = [getattr(value, "__func__", value) for value in vars(cls).values()]
    return [function for function in functions if getattr(function, "__module__", "") == protocols.__name__]


@pytest.mark.parametrize("name", sorted(HOOKS))
def test_every_hook_is_documented_with_its_signature(name: str) -> None:
    assert f"- `{signature(HOOKS[name])}`: " in DOCUMENT


@pytest.mark.parametrize("name", sorted(HOOKS))
def test_every_hook_has_a_first_party_implementation(name: str) -> None:
    implementations = getattr(load_registry()._manager.hook, name).get_hookimpls()

    assert FIRST_PARTY & {implementation.plugin_name for implementation in implementations}


def test_every_kind_has_its_hook() -> None:
    assert {f"qgate_register_{kind}" for kind in KINDS} <= HOOKS.keys()


@pytest.mark.parametrize(
    "method", [pytest.param(method, id=method.__qualname__) for cls in SEAMS.values() for method in methods(cls)]
)
def test_every_method_of_a_protocol_is_documented_with_its_signature(method: Callable[..., Any]) -> None:
    assert f"- `{signature(method)}`" in DOCUMENT


def test_every_protocol_has_methods_to_document() -> None:
    assert sorted(SEAMS) == [
        "Backend",
        "Calibrator",
        "Dataset",
        "Executor",
        "Exporter",
        "Loader",
        "MergeableMetric",
        "Metric",
        "Panels",
        "Reporter",
    ]
    assert all(methods(cls) for cls in SEAMS.values())


@pytest.mark.parametrize("name", sorted(Observer.__abstractmethods__))
def test_every_method_that_an_observer_must_have_is_documented(name: str) -> None:
    assert f"- `{signature(getattr(Observer, name))}`" in DOCUMENT


@pytest.mark.parametrize(
    "name",
    [
        item.name
        for value in (protocols.LoadedModel, protocols.Sample, *(getattr(panels, name) for name in SHOWN))
        for item in fields(value)
    ],
)
def test_every_field_that_a_plugin_fills_is_documented(name: str) -> None:
    assert f"`{name}`" in DOCUMENT
