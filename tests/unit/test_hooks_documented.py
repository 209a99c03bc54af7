from __future__ import annotations

import inspect
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

from qgate import hookspecs
from qgate.plugins import KINDS, load_registry

DOCUMENT = (Path(__file__).parents[2] / "docs" / "plugins.md").read_text()
HOOKS = {name: hook for name, hook in inspect.getmembers(hookspecs, inspect.isfunction) if name.startswith("qgate_")}


@pytest.mark.parametrize("name", sorted(HOOKS))
def test_every_hook_is_documented_with_its_arguments(name: str) -> None:
    arguments = ", ".join(inspect.signature(HOOKS[name]).parameters)

    assert f"`{name}({arguments})`" in DOCUMENT


@pytest.mark.parametrize("name", sorted(HOOKS))
def test_every_hook_has_a_user_among_the_own_plugins(name: str) -> None:
    manager = load_registry()._manager

    assert getattr(manager.hook, name).get_hookimpls()


def test_every_kind_has_its_hook() -> None:
    assert {f"qgate_register_{kind}" for kind in KINDS} <= HOOKS.keys()


def test_the_loader_shown_loads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (source,) = re.findall(r"```python\n(.*?)```", DOCUMENT, flags=re.DOTALL)
    plugin = ModuleType("thermal_plugin")
    monkeypatch.setitem(sys.modules, "thermal_plugin", plugin)
    exec(source, plugin.__dict__)  # noqa: S102  # our own document's code
    weights = torch.nn.Sequential(torch.nn.Conv2d(1, 8, 3)).state_dict()
    torch.save(weights, tmp_path / "thermal.pt")

    loader = load_registry(plugins=[(plugin, "thermal")]).loaders.get("thermal")
    loaded = loader().load(loader.Options(weights=tmp_path / "thermal.pt", channels=8))

    assert torch.equal(loaded.module[0].weight, weights["0.weight"])
