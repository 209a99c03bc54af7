"""The plugin manager: what is registered, by kind and name."""

from __future__ import annotations

import difflib
import inspect
import sys
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import pluggy

from qgate import hookspecs
from qgate.errors import ConfigError, PluginError, QGateError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path
    from types import ModuleType

    from qgate.protocols import Backend, Calibrator, Dataset, Executor, Exporter, Loader, Metric, Panels, Reporter
    from qgate.quantization.observers import Observer

T = TypeVar("T")

KINDS = (
    "loaders",
    "datasets",
    "metrics",
    "observers",
    "calibrators",
    "backends",
    "exporters",
    "reporters",
    "panels",
    "executors",
)


@dataclass(frozen=True)
class Registered(Generic[T]):
    """A class that a plugin registered, and the plugin's name."""

    item: type[T]
    plugin: str


class Kind(Generic[T]):
    """The classes of one kind, by name."""

    def __init__(self, kind: str, entries: dict[str, Registered[T]]) -> None:
        self.kind = kind
        self._entries = entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __contains__(self, name: str) -> bool:
        return name in self._entries

    def plugin_of(self, name: str) -> str:
        """Name the plugin that registered `name`."""
        return self._entries[name].plugin

    def get(self, name: str) -> type[T]:
        """Give the class of that name. Raises `PluginError` with the valid names."""
        if name not in self._entries:
            close = difflib.get_close_matches(name, self._entries, n=1)
            hint = f'did you mean "{close[0]}"?' if close else f"there are {', '.join(sorted(self._entries)) or 'none'}"
            raise PluginError(f'unknown {self.kind.removesuffix("s")} "{name}"; {hint}')
        return self._entries[name].item


class Registry:
    """What all plugins together provide. A kind's hooks are called when it is first asked for."""

    def __init__(self, manager: pluggy.PluginManager) -> None:
        self._manager = manager

    @cached_property
    def loaders(self) -> Kind[Loader]:
        """Give the loaders."""
        return self._collect("loaders")

    @cached_property
    def datasets(self) -> Kind[Dataset]:
        """Give the data set formats."""
        return self._collect("datasets")

    @cached_property
    def metrics(self) -> Kind[Metric]:
        """Give the metrics."""
        return self._collect("metrics")

    @cached_property
    def observers(self) -> Kind[Observer]:
        """Give the observers."""
        return self._collect("observers")

    @cached_property
    def calibrators(self) -> Kind[Calibrator]:
        """Give the calibrators."""
        return self._collect("calibrators")

    @cached_property
    def backends(self) -> Kind[Backend]:
        """Give the backends."""
        return self._collect("backends")

    @cached_property
    def exporters(self) -> Kind[Exporter]:
        """Give the export formats."""
        return self._collect("exporters")

    @cached_property
    def reporters(self) -> Kind[Reporter]:
        """Give the report formats."""
        return self._collect("reporters")

    @cached_property
    def panels(self) -> Kind[Panels]:
        """Give what reports show beyond figures."""
        return self._collect("panels")

    @cached_property
    def executors(self) -> Kind[Executor]:
        """Give the executors."""
        return self._collect("executors")

    def propose(self, hook: str, path: Path) -> Mapping[str, Any]:
        """Give the first proposal of a `qgate_propose_*` hook. Raises `ConfigError` with the plugins' reasons."""
        reasons: list[str] = []
        for implementation in reversed(getattr(self._manager.hook, hook).get_hookimpls()):
            proposal = _ask(implementation, hook, path, reasons)
            if proposal is not None:
                return proposal
        raise ConfigError("; ".join(["no plugin recognises it", *reasons]), path=path)

    def drop_class(self, prediction: Any, class_index: int) -> Any:
        """Give a prediction without one class, by the plugin that knows such predictions; None where none does."""
        return self._manager.hook.qgate_drop_class(prediction=prediction, class_index=class_index)

    def pseudo_label(self, prediction: Any) -> Any:
        """Turn a prediction into a target, by the plugin that knows such predictions; None where none does."""
        return self._manager.hook.qgate_pseudo_label(prediction=prediction)

    def plugins(self) -> list[str]:
        """Name the loaded plugins."""
        return sorted(name for name, plugin in self._manager.list_name_plugin() if plugin is not None)

    def modules(self) -> list[ModuleType]:
        """Give the modules that the loaded plugins are, or whose classes they are of."""
        plugins = [plugin for _, plugin in self._manager.list_name_plugin() if plugin is not None]
        return [plugin if inspect.ismodule(plugin) else sys.modules[type(plugin).__module__] for plugin in plugins]

    def _collect(self, kind: str) -> Kind[Any]:
        hook = f"qgate_register_{kind}"
        entries: dict[str, Registered[Any]] = {}
        for implementation in getattr(self._manager.hook, hook).get_hookimpls():
            for item in _call(implementation, hook):
                _add(entries, Registered(item, implementation.plugin_name), kind)
        return Kind(kind, entries)


def load_registry(modules: Iterable[str] = (), plugins: Iterable[tuple[object, str]] = ()) -> Registry:
    """Load the core's own plugin, the entry-point group `qgate`, then `modules`, then `plugins` (object and name).

    Raises `PluginError` where one cannot be imported, misspells a hook, forgets to mark one, or is there twice.
    """
    manager = pluggy.PluginManager("qgate")
    manager.add_hookspecs(hookspecs)
    manager.register(import_module("qgate.builtin"), "qgate")
    _load_entry_points(manager)
    for name in modules:
        _register(manager, _import(name), name)
    for plugin, name in plugins:
        _register(manager, plugin, name)
    for name, plugin in manager.list_name_plugin():
        _check_marked(plugin, name)
    try:
        manager.check_pending()
    except pluggy.PluginValidationError as error:
        raise PluginError(f"plugin {_name_of(manager, error)}: {error}; see `qgate plugins` for the hooks") from None
    return Registry(manager)


def _load_entry_points(manager: pluggy.PluginManager) -> None:
    # Not by pluggy, which skips the second of two plugins of one name.
    for point in entry_points(group="qgate"):
        try:
            plugin = point.load()
        except Exception as error:  # an installed plugin's import may raise anything
            raise PluginError(f'installed plugin "{point.name}" ({point.value}) fails: {_brief(error)}') from error
        _register(manager, plugin, point.name)


def _import(name: str) -> object:
    try:
        return import_module(name)
    except Exception as error:  # importing a user's module may raise anything
        raise PluginError(f'plugin "{name}" cannot be imported: {_brief(error)}') from error


def _register(manager: pluggy.PluginManager, plugin: object, name: str) -> None:
    if manager.is_registered(plugin):
        return
    if manager.has_plugin(name):
        raise PluginError(f'plugin "{name}" is there twice: {manager.get_plugin(name)!r} and {plugin!r}')
    try:
        manager.register(plugin, name)
    except pluggy.PluginValidationError as error:
        raise PluginError(f'plugin "{name}": {error}') from None


def _check_marked(plugin: object, name: str) -> None:
    """Refuse a hook without `@qgate.hookimpl`: pluggy would not see it, and nothing would be registered."""
    for attribute in dir(plugin):
        value = getattr(plugin, attribute) if attribute.startswith("qgate_") else None
        if (inspect.isfunction(value) or inspect.ismethod(value)) and not hasattr(value, "qgate_impl"):
            raise PluginError(
                f'plugin "{name}": {attribute} is not marked as a hook; put @qgate.hookimpl above it, or name it '
                'without "qgate_" in front'
            )


def _call(implementation: pluggy.HookImpl, hook: str) -> Iterable[Any]:
    try:
        registered: Any = implementation.function()
        return list(registered or ())
    except Exception as error:  # a plugin's hook may raise anything
        raise _failed(implementation, hook, error) from error


def _ask(implementation: pluggy.HookImpl, hook: str, path: Path, reasons: list[str]) -> Mapping[str, Any] | None:
    """Give a plugin's proposal; None where it has none, and then `reasons` may say why."""
    try:
        proposal: Any = implementation.function(path)
    except QGateError as error:
        reason = error.message if error.path == path else str(error)
        reasons.append(f"{implementation.plugin_name}: {reason}")
        return None
    except Exception as error:  # a plugin's hook may raise anything
        raise _failed(implementation, hook, error) from error
    return proposal  # type: ignore[no-any-return]  # what the hook's specification says


def _failed(implementation: pluggy.HookImpl, hook: str, error: Exception) -> PluginError:
    return PluginError(f'plugin "{implementation.plugin_name}": {hook} failed: {_brief(error)}')


def _add(entries: dict[str, Registered[Any]], entry: Registered[Any], kind: str) -> None:
    name = getattr(entry.item, "name", None)
    if not isinstance(name, str) or not name:
        raise PluginError(f'plugin "{entry.plugin}": {entry.item!r} of the {kind} has no `name`')
    if name in entries:
        raise PluginError(
            f'the name "{name}" is taken twice among the {kind}: by plugin "{entries[name].plugin}" and by '
            f'plugin "{entry.plugin}"; rename one'
        )
    entries[name] = entry


def _name_of(manager: pluggy.PluginManager, error: pluggy.PluginValidationError) -> str:
    return f'"{manager.get_name(error.plugin)}"'


def _brief(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"
