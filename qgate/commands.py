"""What each command of the command line does; all of them raise `QGateError` for the user's mistakes."""

from __future__ import annotations

import contextlib
import json
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from qgate.errors import ArtifactError, ConfigError, QGateError, ResultsError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator, Sequence

    from rich.console import Console

    from qgate.config.model import Settings
    from qgate.engine.gate import Gate
    from qgate.engine.progress import Progress
    from qgate.engine.tuning.search import Tuned
    from qgate.plugins import Registry
    from qgate.reporting.formats import Report
    from qgate.results import Result

T = TypeVar("T")

CONFIG = "qgate.toml"


def check(options: argparse.Namespace) -> int:
    """Judge the chosen models, save and show the result; 1 where a limit is not held."""
    from qgate.reporting.github import annotation_lines, append_summary, is_github

    with _others_off_stdout(options.json):
        gate = _open(options.config, models=options.model, timing=not options.no_timing)
        reports = _reports(options, gate.registry)
        with _training_together(gate) as is_first:
            if not is_first:
                return 0
            _run(gate)
    result = gate.result()
    try:
        gate.save(result)
    finally:  # what took minutes to find is shown, also where it cannot be saved
        _show(result, as_json=options.json)
    for report in reports:
        report.write(result)
    if is_github():
        sys.stderr.writelines(f"{line}\n" for line in annotation_lines(result, gate.config.qgate.on_inconclusive))
        append_summary(result)
    return 0 if result.accepted(gate.config.qgate.on_inconclusive) else 1


def report(options: argparse.Namespace) -> int:
    """Show the last run's result, what changed between two runs, or the runs so far."""
    if options.output and not options.format:
        raise QGateError("--output needs --format or --json")
    if options.compare or options.history:
        if options.format not in (None, "json"):
            raise QGateError(f"--{'compare' if options.compare else 'history'} is shown as text, or with --json")
        return _compare(options) if options.compare else _history(options)
    return _report_last(options)


def _report_last(options: argparse.Namespace) -> int:
    from qgate.reporting.formats import Report
    from qgate.reporting.judged_file import about, judged_file
    from qgate.results import load_results

    result = load_results(_settings(options.config).results)
    judged = judged_file(result, options.config)
    result = result.compared_with_disk(judged.absolute().parent)
    if options.format:
        with _others_off_stdout(options.format == "json"):
            reporter = _registry(options.config).reporters.get(options.format)()
        Report(reporter, options.output).write(result)
    else:
        _show(result)
    sys.stderr.writelines(f"qgate: {note}\n" for note in about(result, judged, options.config))
    return 0


def _compare(options: argparse.Namespace) -> int:
    from qgate.config.model import Settings
    from qgate.engine.changes import compare
    from qgate.reporting.changes import as_json, as_text
    from qgate.results import load_results

    before, after = (load_results(path) for path in options.compare)
    settings = _settings(options.config) if options.config.exists() else Settings()
    try:
        changes = compare(before, after, settings.confidence)
    except (KeyError, TypeError, ValueError) as error:
        raise ResultsError(f"cannot be compared ({error}); run both gates again", path=options.compare[1]) from None
    first, second = map(str, options.compare)
    _show_or_write(options, as_json(changes), lambda: as_text(changes, (first, second), **_terminal()))
    return 0


def _history(options: argparse.Namespace) -> int:
    from qgate.environment import repository_path
    from qgate.history import load_history
    from qgate.reporting.history import as_json, as_text

    history = load_history(_settings(options.config).results, repository_path(options.config))
    if not history.runs:
        raise ResultsError("no runs yet; run `qgate check` or `pytest --qgate` first", path=options.config)
    _show_or_write(options, as_json(history), lambda: as_text(history, str(options.config), **_terminal()))
    return 0


def _show_or_write(options: argparse.Namespace, document: Any, text: Callable[[], str]) -> None:
    """Show `text`, or, where JSON is wanted, write `document` to the chosen place."""
    from qgate.reporting.text import write_text
    from qgate.results import finite

    if not options.format:
        sys.stdout.write(text())
        return
    try:
        write_text(json.dumps(finite(document), indent=2, allow_nan=False) + "\n", options.output)
    except OSError as error:
        raise QGateError(f"cannot be written: {error.strerror or error}", path=options.output) from error


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
    text = propose(options.weights, options.data, folder, registry)
    try:
        write_atomically(options.output, text.encode())
    except OSError as error:
        raise ConfigError(f"cannot be written: {error.strerror or error}", path=options.output) from error
    named = "" if options.output == Path(CONFIG) else shlex.quote(str(options.output))
    check, under_pytest = (f" {option} {named}" if named else "" for option in ("--config", "--qgate-config"))
    sys.stdout.write(f"wrote {options.output}; run `qgate check{check}` or `pytest --qgate{under_pytest}`\n")
    return 0


def export(options: argparse.Namespace) -> int:
    """Write one model's int8 artifact, or a file of another format that runs without qgate."""
    from qgate.reporting.progress import progress_on

    if options.output.is_dir():
        raise ArtifactError("is a folder; --output names the file to write", path=options.output)
    gate = _open(options.config, models=[options.model] if options.model else [])
    if len(gate.models) > 1:
        names = ", ".join(model.name for model in gate.models)
        raise ArtifactError(f"one model is written to one file; name it with --model: {names}", path=options.config)
    (name,) = (model.name for model in gate.models)
    with progress_on(sys.stderr) as progress:
        artifact = gate.export(name, options.output, progress(name), options.format)
    sys.stdout.write(f"wrote {options.output}: {artifact.bytes} bytes, sha256 {artifact.sha256}\n")
    return 0


def selftest(options: argparse.Namespace) -> int:
    """Plant faults and show which are caught; 1 where one is not, or where the gate does not hold as it is."""
    from qgate.engine.selftest import selftest as run
    from qgate.reporting.progress import progress_on
    from qgate.reporting.selftest import as_text, is_proven

    with _others_off_stdout(options.json), progress_on(sys.stderr) as progress:
        gate = _open(options.config, models=options.model)
        outcomes = {model.name: list(run(gate, model.name, progress)) for model in gate.models}
    if options.json:
        listed = {name: [vars(outcome) for outcome in found] for name, found in outcomes.items()}
        sys.stdout.write(json.dumps(listed, indent=2) + "\n")
    else:
        sys.stdout.write("\n".join(as_text(name, found) for name, found in outcomes.items()))
    return 0 if all(map(is_proven, outcomes.values())) else 1


def explain(options: argparse.Namespace) -> int:
    """Show where int8's time goes, or what costs its accuracy, layer by layer."""
    if options.accuracy:
        return _explain_accuracy(options)
    if options.plot:
        raise QGateError("--plot needs --accuracy")
    from qgate.engine.explain import explain as measure
    from qgate.reporting.explain import as_json, as_text

    _show_explained(options, _explained(options, measure), as_json, as_text)
    return 0


def _explain_accuracy(options: argparse.Namespace) -> int:
    from qgate.engine.accuracy import explain_accuracy
    from qgate.reporting.accuracy import as_json, as_text
    from qgate.reporting.plot import check_plot, plot_accuracy

    if options.plot:
        check_plot(options.plot)
    found = _explained(options, explain_accuracy)
    _show_explained(options, found, as_json, as_text)
    if options.plot:
        for name, one in found.items():
            plot_accuracy(name, one, options.plot)
    return 0


def _explained(options: argparse.Namespace, measure: Callable[[Gate, str, Progress], T]) -> dict[str, T]:
    """Measure the chosen models. Raises `QGateError` where there are several for one plot."""
    from qgate.reporting.progress import progress_on

    with _others_off_stdout(options.json), progress_on(sys.stderr) as progress:
        gate = _open(options.config, models=[options.model] if options.model else [])
        if options.plot and len(gate.models) > 1:
            raise QGateError("--plot draws one model; name it: " + ", ".join(model.name for model in gate.models))
        return {model.name: measure(gate, model.name, progress(model.name)) for model in gate.models}


def _show_explained(
    options: argparse.Namespace, found: dict[str, T], as_json: Callable[[T], Any], as_text: Callable[..., str]
) -> None:
    if options.json:
        sys.stdout.write(json.dumps({name: as_json(one) for name, one in found.items()}, indent=2) + "\n")
    else:
        width = _console().width
        sys.stdout.write("\n".join(as_text(*item, width=width, every_layer=options.all) for item in found.items()))


def tune(options: argparse.Namespace) -> int:
    """Search each model's best recipe, write it into the configuration, and judge it; 1 where a limit is missed."""
    from qgate.reporting.tune import as_json

    with _others_off_stdout(options.json):
        found = _tuned(options)
        gate = _open(options.config, models=options.model)
        _run(gate)
    result = gate.result()
    try:
        gate.save(result)
    finally:
        if options.json:
            tuned = {name: as_json(one) for name, one in found.items()}
            sys.stdout.write(json.dumps({"tuned": tuned, "result": json.loads(result.to_json())}, indent=2) + "\n")
        else:
            _show(result)
    return 0 if result.accepted(gate.config.qgate.on_inconclusive) else 1


def _tuned(options: argparse.Namespace) -> dict[str, Tuned]:
    """Search, write what was found into the configuration, and say so."""
    from qgate.config.rewrite import write_recipe
    from qgate.engine.tuning.candidates import settings
    from qgate.engine.tuning.search import tune as search
    from qgate.engine.tuning.trials import accuracy_table
    from qgate.outputs import config_output
    from qgate.reporting.progress import progress_on
    from qgate.reporting.tune import as_text

    found = {}
    gate = _open(options.config, models=options.model)
    config_output(options.config.resolve()).check()  # a link stays one
    gate.preflight()
    for model in gate.models:
        accuracy_table(model, gate)
    for model in gate.models:
        with progress_on(sys.stderr) as progress:
            tuned = found[model.name] = search(gate, model.name, 60 * options.minutes, progress(model.name))
        write_recipe(options.config, model.name, settings(model.quantization, tuned.best.trial.recipe))
        if not options.json:
            sys.stdout.write(as_text(model.name, tuned, width=_console().width) + "\n")
    return found


def plugins(options: argparse.Namespace) -> int:
    """List what is registered, by which plugin, and the hooks."""
    from qgate.reporting.listing import as_json, as_text

    config = options.config or (Path(CONFIG) if Path(CONFIG).exists() else None)
    with _others_off_stdout(options.json):
        listing = as_json(_registry(config))
    sys.stdout.write(json.dumps(listing, indent=2) + "\n" if options.json else as_text(listing))
    return 0


def new_plugin(options: argparse.Namespace) -> int:
    """Write a plugin package with a test into the working folder."""
    from qgate.plugins import load_registry
    from qgate.scaffold import write_plugin

    folder = write_plugin(options.name, options.kind, Path(), load_registry())
    sys.stdout.write(f"wrote {folder}; run `pip install --editable {folder}`, then `pytest {folder}`\n")
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


@contextlib.contextmanager
def _training_together(gate: Gate) -> Iterator[bool]:
    """Let the processes that `torchrun` has started train together; give whether this is the one that does the rest."""
    from qgate.engine.training.processes import Processes

    processes = gate.processes = Processes.from_environment()
    try:
        if processes.rank:
            gate.help()
        yield processes.rank == 0
        processes.dismiss()
    finally:
        processes.close()


def _reports(options: argparse.Namespace, registry: Registry) -> list[Report]:
    from qgate.reporting.formats import Report

    reports = [Report.parse(text, registry) for text in options.report]
    for report in reports:
        if options.json and report.destination is None:
            raise QGateError(
                f"--json has standard output for itself; name a file: --report {report.reporter.name}:FILE"
            )
    return reports


def _others_off_stdout(json_wanted: bool) -> contextlib.AbstractContextManager[Any]:
    """Send what plugins and factories print to standard error, where a machine reads standard output."""
    return contextlib.redirect_stdout(sys.stderr) if json_wanted else contextlib.nullcontext()


def _show(result: Result, *, as_json: bool = False) -> None:
    if as_json:
        sys.stdout.write(result.to_json())
        return
    from qgate.reporting.console import render

    sys.stdout.write(render(result, **_terminal()))


def _terminal() -> dict[str, Any]:
    """Describe what standard output is, as `render` takes it."""
    console = _console()
    color = console.color_system is not None and not console.no_color
    return {"width": console.width, "color": color, "encoding": sys.stdout.encoding}


def _console() -> Console:
    from rich.console import Console

    return Console()


def _settings(config: Path) -> Settings:
    from qgate.config.document import parse
    from qgate.config.reader import bind_settings

    return bind_settings(parse(config))


def _registry(config: Path | None) -> Registry:
    """Load the installed plugins and, where there is a configuration, its own and the `conftest.py` beside it."""
    from qgate.local_plugin import load_local_plugin
    from qgate.plugins import load_registry

    if config is None:
        return load_registry()
    return load_registry(_settings(config).plugins, load_local_plugin(config.absolute().parent))
