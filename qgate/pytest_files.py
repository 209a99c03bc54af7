"""Which `qgate.toml` a run of pytest judges, and which `conftest.py` files are its plugins."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from qgate.config.document import shown
from qgate.local_plugin import FILE_NAME, load_local_plugin

CONFIG_NAME = "qgate.toml"


def config_path(config: pytest.Config) -> Path:
    """Find the file as an absolute path; symbolic links stay, so that node ids are the user's own names.

    In this order: what `--qgate-config` says, a `.toml` file among the arguments, `qgate.toml` of the working folder
    where that is in the project, `qgate.toml` of the project's root. Raises `pytest.UsageError`.
    """
    here = config.invocation_params.dir
    given = config.getoption("qgate_config") or _argument(config.args)
    in_project = here.is_relative_to(config.rootpath) and (here / CONFIG_NAME).is_file()
    folder = here if given or in_project else config.rootpath
    return Path(os.path.abspath(folder / (given or CONFIG_NAME)))  # noqa: PTH100  # `resolve` follows links


def local_plugins(config: pytest.Config, folder: Path) -> list[tuple[object, str]]:
    """Give the root's `conftest.py`, if pytest loaded it, and the one beside the configuration, loaded now if not."""
    if config.option.noconftest:
        return []
    loaded = {
        Path(file): plugin
        for plugin in config.pluginmanager.get_plugins()
        if (file := getattr(plugin, "__file__", None)) and Path(file).name == FILE_NAME
    }
    paths = dict.fromkeys((config.rootpath / FILE_NAME, folder / FILE_NAME))
    plugins: list[tuple[object, str]] = [(loaded[path], str(shown(path))) for path in paths if path in loaded]
    return plugins if folder / FILE_NAME in loaded else plugins + load_local_plugin(folder)


def _argument(arguments: list[str]) -> str | None:
    """Give the `.toml` file that arguments name, as a path or in a node id."""
    paths = (argument.partition("[")[0].partition("::")[0] for argument in arguments)
    files = list(dict.fromkeys(path for path in paths if path.endswith(".toml")))
    if len(files) > 1:
        raise pytest.UsageError(f"one run judges one configuration, not {', '.join(files)}; run pytest for each")
    return files[0] if files else None
