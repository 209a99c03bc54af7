"""What each command of the command line does; all of them raise `QGateError` for the user's mistakes."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from qgate.errors import ConfigError, QGateError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from qgate.config.model import Settings
    from qgate.engine.gate import Gate
    from qgate.plugins import Registry
    from qgate.results import Result

CONFIG = "qgate.toml"


def check(options: argparse.Namespace) -> int:
    """Judge the chosen models, save and show the result; 1 where a limit is not held."""
    from qgate.reporting.formats import Report

    gate = _open(options.config, models=options.model, timing=not options.no_timing)
    reports = [Report.parse(text, gate.registry) for text in options.report]
    _run(gate)
    result = gate.result()
    if options.json:
        sys.stdout.write(result.to_json())
    else:
        _show(result)
    for report in reports:
        report.write(result)
    return 0 if result.accepted(gate.config.qgate.on_inconclusive) else 1


def report(options: argparse.Namespace) -> int:
    """Show the last run's result."""
    from qgate.reporting.formats import Report
    from qgate.results import load_results

    if options.output and not options.format:
        raise QGateError("--output needs --format or --json")
    result = load_results(_settings(options.config).results)
    if options.format:
        reporter = _registry(options.config).reporters.get(options.format)()
        Report(reporter, options.output).write(result)
    else:
        _show(result)
    return 0


def init(options: argparse.Namespace) -> int:
    """Write a `qgate.toml` that works as it stands; an existing file stays as it is."""
    from qgate.config.init import propose
    from qgate.files import write_atomically
    from qgate.local_plugin import load_local_plugin
    from qgate.plugins import load_registry

    if options.output.exists():
        raise ConfigError("is there already; remove it, or name another file with --output", path=options.output)
    folder = options.output.absolute().parent
    registry = load_registry(plugins=load_local_plugin(folder))
    write_atomically(options.output, propose(options.weights, options.data, folder, registry).encode())
    sys.stdout.write(f"wrote {options.output}; run `qgate check` or `pytest --qgate`\n")
    return 0


def export(options: argparse.Namespace) -> int:
    """Write one model's int8 artifact."""
    from qgate.reporting.progress import progress_on

    gate = _open(options.config, models=[options.model])
    with progress_on(sys.stderr) as progress:
        artifact = gate.export(options.model, options.output, progress(options.model))
    sys.stdout.write(f"wrote {options.output}: {artifact.bytes} bytes, sha256 {artifact.sha256}\n")
    return 0


def plugins(options: argparse.Namespace) -> int:
    """List what is registered, by which plugin, and the hooks."""
    from qgate.reporting.listing import as_json, as_text

    config = options.config or (Path(CONFIG) if Path(CONFIG).exists() else None)
    registry = _registry(config)
    sys.stdout.write(json.dumps(as_json(registry), indent=2) + "\n" if options.json else as_text(registry))
    return 0


def _open(config: Path, *, models: Sequence[str], timing: bool = True) -> Gate:
    from qgate.engine.gate import Gate
    from qgate.local_plugin import load_local_plugin

    return Gate.open(config, models=models, plugins=load_local_plugin(config.absolute().parent), timing=timing)


def _run(gate: Gate) -> None:
    from qgate.reporting.progress import progress_on

    gate.preflight()
    with progress_on(sys.stderr) as progress:
        for model in gate.models:
            gate.run(model.name, progress(model.name))
    gate.save()


def _show(result: Result) -> None:
    from rich.console import Console

    from qgate.reporting.console import render

    console = Console()
    color = console.color_system is not None and not console.no_color
    sys.stdout.write(render(result, width=console.width, color=color))


def _settings(config: Path) -> Settings:
    from qgate.config.binder import bind_table
    from qgate.config.document import parse
    from qgate.config.model import Settings

    return bind_table(parse(config).root.table("qgate"), Settings)


def _registry(config: Path | None) -> Registry:
    """Load the installed plugins and, where there is a configuration, its own and the `conftest.py` beside it."""
    from qgate.local_plugin import load_local_plugin
    from qgate.plugins import load_registry

    if config is None:
        return load_registry()
    return load_registry(_settings(config).plugins, load_local_plugin(config.absolute().parent))
