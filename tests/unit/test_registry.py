from __future__ import annotations

import sys
from importlib.metadata import EntryPoint
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest

from qgate import hookimpl, plugins
from qgate.errors import ConfigError, ModelError, PluginError
from qgate.plugins import KINDS, Registry, load_registry

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def plugin(**hooks: Callable[..., Any]) -> object:
    """Make a plugin of these functions, marked as hooks."""
    return type("Plugin", (), {name: staticmethod(hookimpl(function)) for name, function in hooks.items()})()


def named(name: str) -> type:
    return type(name.title(), (), {"name": name})


def load(*objects: object, names: str = "abc") -> Registry:
    return load_registry(plugins=list(zip(objects, names, strict=False)))


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_plugin_registers_is_found_by_name(kind: str) -> None:
    item = named("mine")

    registered = getattr(load(plugin(**{f"qgate_register_{kind}": lambda: [item]})), kind)

    assert "mine" in registered
    assert registered.get("mine") is item
    assert registered.plugin_of("mine") == "a"


@pytest.mark.parametrize("kind", KINDS)
def test_a_name_that_is_taken_twice_names_both_plugins(kind: str) -> None:
    registry = load(*(plugin(**{f"qgate_register_{kind}": lambda: [named("mine")]}) for _ in range(2)))

    with pytest.raises(PluginError, match=f'"mine" is taken twice among the {kind}: by plugin "a" and by plugin "b"'):
        getattr(registry, kind)


def test_a_built_in_name_cannot_be_taken() -> None:
    registry = load(plugin(qgate_register_backends=lambda: [named("fbgemm")]))

    with pytest.raises(PluginError, match=r'"fbgemm" is taken twice .* plugin "qgate" and by plugin "a"'):
        _ = registry.backends


def test_an_unknown_name_gets_the_nearest_or_all() -> None:
    backends = load().backends

    with pytest.raises(PluginError, match='unknown backend "fbgem"; did you mean "fbgemm"'):
        backends.get("fbgem")
    with pytest.raises(
        PluginError, match='unknown backend "zzz"; there are fbgemm, fused, onednn, onnxruntime, openvino, x86'
    ):
        backends.get("zzz")


@pytest.mark.parametrize("hook", ["qgate_register_metrcs", "qgate_propose_modell", "qgate_before_run"])
def test_a_misspelt_hook_is_named_with_its_plugin(hook: str) -> None:
    with pytest.raises(PluginError, match=f'plugin "a": .*{hook}'):
        load(plugin(**{hook: lambda: ()}))


@pytest.mark.parametrize("hook", ["qgate_register_metrics", "qgate_propose_model", "qgate_anything"])
def test_an_unmarked_function_is_named_with_the_way_out(hook: str) -> None:
    module = ModuleType("unmarked")
    setattr(module, hook, lambda: ())

    with pytest.raises(PluginError, match=f'plugin "a": {hook} is not marked as a hook; put @qgate.hookimpl above it'):
        load(module)


def test_other_things_with_such_names_are_no_hooks() -> None:
    module = ModuleType("harmless")
    module.qgate_yolov5 = ModuleType("qgate_yolov5")  # type: ignore[attr-defined]
    module.qgate_version = "1"  # type: ignore[attr-defined]
    module.qgate_project = pytest.fixture(lambda: None)  # type: ignore[attr-defined]

    assert "a" in load(module).plugins()


def test_a_hook_with_an_argument_that_there_is_not_is_an_error() -> None:
    with pytest.raises(PluginError, match=r'plugin "a": .*qgate_register_metrics.*colour'):
        load(plugin(qgate_register_metrics=lambda colour: []))


def test_two_plugins_of_one_name_are_an_error() -> None:
    with pytest.raises(PluginError, match='plugin "a" is there twice: '):
        load(plugin(), plugin(), names="aa")


def test_the_same_plugin_again_is_not() -> None:
    one = plugin(qgate_register_metrics=lambda: [named("mine")])

    assert list(load(one, one).metrics).count("mine") == 1


@pytest.mark.parametrize(
    ("returned", "said"),
    [
        (lambda: 1 / 0, "qgate_register_metrics failed: ZeroDivisionError: division by zero"),
        (lambda: 3, "qgate_register_metrics failed: TypeError"),
        (lambda: [object], "has no `name`"),
        (lambda: [named("")], "has no `name`"),
    ],
)
def test_a_hook_that_fails_is_one_line(returned: Callable[[], Any], said: str) -> None:
    with pytest.raises(PluginError, match=said) as caught:
        _ = load(plugin(qgate_register_metrics=returned)).metrics
    assert 'plugin "a"' in str(caught.value)
    assert "\n" not in str(caught.value)


def test_kinds_that_are_not_asked_for_are_not_called() -> None:
    assert load(plugin(qgate_register_metrics=lambda: 1 / 0)).loaders.get("factory")


class TestModules:
    def test_a_module_is_a_plugin(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        source = "import qgate\nclass M: name = 'mine'\n@qgate.hookimpl\ndef qgate_register_metrics(): return [M]\n"
        (tmp_path / "plugin_of_a_test.py").write_text(source)
        monkeypatch.syspath_prepend(tmp_path)

        registry = load_registry(["plugin_of_a_test"])

        assert registry.metrics.plugin_of("mine") == "plugin_of_a_test"
        del sys.modules["plugin_of_a_test"]

    @pytest.mark.parametrize(
        ("source", "said"),
        [(None, "ModuleNotFoundError: No module named"), ("1 / 0", "ZeroDivisionError"), ("def", "SyntaxError")],
    )
    def test_a_module_that_cannot_be_imported_is_one_line(
        self, source: str | None, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        if source:
            (tmp_path / "broken_plugin.py").write_text(source)
        monkeypatch.syspath_prepend(tmp_path)

        with pytest.raises(PluginError, match=f'^plugin "broken_plugin" cannot be imported: {said}') as caught:
            load_registry(["broken_plugin"])
        assert "\n" not in str(caught.value)


class TestEntryPoints:
    def install(self, monkeypatch: pytest.MonkeyPatch, *points: tuple[str, str]) -> None:
        made = [EntryPoint(name, value, "qgate") for name, value in points]
        monkeypatch.setattr(plugins, "entry_points", lambda group: made)

    def test_an_installed_plugin_loads_by_itself(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.install(monkeypatch, ("calibrators", "qgate_observers"))

        registry = load_registry()

        assert registry.calibrators.plugin_of("stratified") == "calibrators"
        assert registry.plugins() == ["calibrators", "qgate"]

    def test_one_that_fails_to_import_is_one_line_that_names_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.install(monkeypatch, ("radar", "qgate_radar_that_is_not_here"))

        with pytest.raises(PluginError) as caught:
            load_registry()
        assert str(caught.value) == (
            'installed plugin "radar" (qgate_radar_that_is_not_here) fails: '
            "ModuleNotFoundError: No module named 'qgate_radar_that_is_not_here'"
        )

    def test_two_of_one_name_are_an_error(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.install(monkeypatch, ("same", "qgate_observers"), ("same", "qgate_yolov5"))

        with pytest.raises(PluginError, match=r'plugin "same" is there twice: .*qgate_observers.*qgate_yolov5'):
            load_registry()


class TestProposals:
    def propose(self, path: Path, *answers: Callable[[Path], Any]) -> Any:
        hooks = (plugin(qgate_propose_model=lambda weights, answer=answer: answer(weights)) for answer in answers)
        return load(*hooks).propose("qgate_propose_model", path)

    def test_the_plugin_registered_last_is_asked_first(self, tmp_path: Path) -> None:
        path = tmp_path / "weights.xyz"

        assert self.propose(path, lambda _: {"loader": "first"}, lambda _: {"loader": "second"}) == {"loader": "second"}
        assert self.propose(path, lambda _: {"loader": "first"}, lambda _: None) == {"loader": "first"}

    def test_nobody_knows_it(self, tmp_path: Path) -> None:
        path = tmp_path / "weights.xyz"

        def refuse(weights: Path) -> None:
            raise ModelError("is encrypted", path=weights)

        with pytest.raises(ConfigError) as caught:
            self.propose(path, refuse, lambda _: None)
        assert str(caught.value).startswith(f"{path}: no plugin recognises it; a: is encrypted")

    def test_a_crash_names_the_plugin(self, tmp_path: Path) -> None:
        with pytest.raises(PluginError, match='plugin "a": qgate_propose_model failed: ZeroDivisionError'):
            self.propose(tmp_path / "weights.xyz", lambda _: 1 / 0)
